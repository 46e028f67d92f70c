"""Choose the texts on which a student differs most from a confident teacher."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax

from kdedge.augment.lines import label_name
from kdedge.errors import UsageError
from kdedge.recipe import Recipe
from kdedge.runtime import metrics
from kdedge.runtime.agreement import same_label
from kdedge.runtime.spec import TaskSpec

LENGTHS = ("short", "medium", "long")
"""Each holds a third of the training texts."""

MOST_REPEATS = 4
"""How often one text may be used as a prompt while every other text is used once."""


def reject_multilabel(recipe: Recipe) -> None:
    """Raise UsageError if the task has several labels for each text."""
    if recipe.task.kind == "multilabel":
        raise UsageError(
            "this study compares one label, or one score, of each text",
            "the task is multilabel",
            "use a recipe of a classification or a regression",
        )


@dataclass(frozen=True)
class TextComparison:
    """A student and its teacher on N texts.

    Attributes:
        confidence: The teacher's highest probability; 1 for a regression. *Shape:* (N,)
        wrong: Whether the student predicts another class than the teacher. For a regression it
            is False everywhere, because two scores always differ a little. *Shape:* (N,)
        divergence: The divergence from the teacher, see `divergence`. *Shape:* (N,)
    """

    confidence: np.ndarray
    wrong: np.ndarray
    divergence: np.ndarray

    @classmethod
    def of(cls, spec: TaskSpec, teacher: np.ndarray, student: np.ndarray) -> TextComparison:
        """Compare logits (N, C) of both on the same texts."""
        wrong = np.zeros(len(teacher), bool)
        if spec.kind == "classification":
            wrong = ~same_label(spec, teacher, student)
        return cls(confidence(spec, teacher), wrong, divergence(spec, teacher, student))

    def confident(self, lowest: float) -> np.ndarray:
        """Return the rows of the texts on which the teacher is confident, in order."""
        return np.flatnonzero(self.confidence >= lowest)

    def select(self, count: int, lowest: float) -> np.ndarray:
        """Return the rows of `count` texts, the best first.

        The teacher is confident on all of them. Texts that the student gets wrong come first, and
        among equals those of larger divergence.

        Raises:
            UsageError: If the teacher is confident on fewer texts.
        """
        rows = self.confident(lowest)
        if len(rows) < count:
            raise UsageError(
                "the teacher is confident on too few generated texts",
                f"{len(rows):,} of {len(self.wrong):,} texts, {count:,} are needed",
                "raise --candidates, or lower --confidence or augment.size",
            )
        order = np.lexsort((-self.divergence[rows], ~self.wrong[rows]))
        return rows[order[:count]]


def confidence(spec: TaskSpec, teacher: np.ndarray) -> np.ndarray:
    """Return the highest probability of logits (N, C), or 1 for a regression: (N,)."""
    if spec.kind == "regression":
        return np.ones(len(teacher))
    return np.asarray(np.exp(log_softmax(teacher.astype(np.float64), axis=1).max(1)))


def divergence(spec: TaskSpec, teacher: np.ndarray, student: np.ndarray) -> np.ndarray:
    """Compute how far a student is from its teacher on each text.

    For classification it is the Kullback-Leibler divergence in nats, the sum over the classes of
    p log(p / q), where p is the teacher's probability and q the student's (Kullback and Leibler
    1951). For regression it is the squared difference.

    Args:
        teacher: Logits. *Shape:* (N, C)
        student: Logits. *Shape:* (N, C)

    Returns:
        *Shape:* (N,)
    """
    teacher, student = teacher.astype(np.float64), student.astype(np.float64)
    if spec.kind == "regression":
        return np.asarray((teacher[:, 0] - student[:, 0]) ** 2)
    log_p = log_softmax(teacher, axis=1)
    log_q = log_softmax(student, axis=1)
    return np.asarray((np.exp(log_p) * (log_p - log_q)).sum(1))


@dataclass(frozen=True)
class Attributes:
    """Label and length of each of N texts; the label is the teacher's."""

    labels: tuple[str, ...]
    lengths: tuple[str, ...]

    @classmethod
    def of(
        cls, spec: TaskSpec, logits: np.ndarray, words: Sequence[int], training: Sequence[int]
    ) -> Attributes:
        """Describe texts by the teacher's logits (N, C) and their numbers of words.

        Args:
            training: The numbers of words of the training texts, which divide the lengths.
        """
        labels = metrics.decide(spec, logits)
        edges = np.quantile(training, [1 / 3, 2 / 3])
        bins = np.searchsorted(edges, words)
        names = tuple(label_name(spec, label) for label in labels)
        return cls(names, tuple(LENGTHS[index] for index in bins))

    def balanced_rows(self) -> np.ndarray:
        """Return rows in which every pair of label and length is about as frequent.

        No text occurs more than `MOST_REPEATS` times, so rare pairs stay somewhat rarer.
        """
        groups = np.array([" ".join(pair) for pair in zip(self.labels, self.lengths, strict=True)])
        names = np.unique(groups)
        share = math.ceil(len(groups) / len(names))
        rows = []
        for name in names:
            members = np.flatnonzero(groups == name)
            rows.append(np.resize(members, min(share, MOST_REPEATS * len(members))))
        return np.concatenate(rows)

    def summary(self) -> str:
        """Return the share of each length and label as one line."""
        labels = sorted(set(self.labels))
        return f"{_shares(self.lengths, LENGTHS)}; {_shares(self.labels, labels)}"


def _shares(values: Sequence[str], names: Iterable[str]) -> str:
    parts = [f"{name} {100 * values.count(name) / len(values):.0f} %" for name in names]
    return ", ".join(parts)
