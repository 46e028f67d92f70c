"""How many made texts, from which sources, and near which texts: asked of a student that is trained on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kdedge.data.task import Split, Task
from kdedge.errors import UsageError
from kdedge.nn import losses
from kdedge.nn.losses import logit_loss
from kdedge.recipe import AugmentConfig, ObjectiveConfig
from kdedge.runtime import metrics
from kdedge.runtime.spec import Kind
from kdedge.transfer.dataset import TransferSet

TrainAndPredict = Callable[[TransferSet, int, Path], np.ndarray]
"""Trains a student on a transfer set from the first seed (0) or a later one, in a folder where finished work is kept.

Returns its logits (N, C) on the validation split.
"""


@dataclass(frozen=True)
class CurvePoint:
    """What a student scored on the validation split after learning from `size` made texts per training text. sources: their origins.

    validation: the mean over seeds. sd: their standard deviation, None of one seed. error: the standard error of what it lies behind the
    best point, which answered the same texts; 0 of the best.
    """

    size: float
    sources: tuple[str, ...]
    texts: int
    validation: float
    sd: float | None = None
    error: float = 0.0


@dataclass(frozen=True)
class LearningCurve:
    """points: labelled alone, then each source alone, then all that help at growing sizes. chosen: one of them."""

    points: tuple[CurvePoint, ...]
    chosen: CurvePoint

    @property
    def best(self) -> CurvePoint:
        return max(self.points, key=lambda point: point.validation)

    def document(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, document: dict[str, Any]) -> LearningCurve:
        points = tuple(
            CurvePoint(**{**point, "sources": tuple(point["sources"])})
            for point in document["points"]
        )
        return cls(
            points,
            CurvePoint(**{**document["chosen"], "sources": tuple(document["chosen"]["sources"])}),
        )


def subset(transfer: TransferSet, size: float, sources: tuple[str, ...]) -> TransferSet:
    """The labelled texts and, of the made ones from these sources, the first `size` for each labelled text."""
    labelled = transfer.texts.labelled
    made = transfer.texts.rows(*sources)[: round(size * len(labelled))]
    return transfer.take(np.concatenate([labelled, made]))


def fit_learning_curve(
    recipe: AugmentConfig, transfer: TransferSet, task: Task, probe: TrainAndPredict, folder: Path
) -> LearningCurve:
    """Train on labelled alone, on each source at the smallest size, and on all that help at every size of `recipe.curve` that was made.

    A source that scores below labelled alone is left out. Chosen is the smallest set that lies behind the best by no more than the
    standard error of this very difference (the rule of Breiman et al. 1984, section 3.4.3, on paired answers: what two students
    get wrong alike tells nothing of which is better). Each size is trained from `recipe.seeds` seeds: of one, the error tells
    what other texts would change, and not what another seed would.
    """
    origins = tuple(
        dict.fromkeys(origin for origin in transfer.texts.origins if origin != "labelled")
    )
    sizes = sorted(set(recipe.curve))
    answers: dict[CurvePoint, np.ndarray] = {}  # (S, N, C)

    def ask(size: float, sources: tuple[str, ...]) -> CurvePoint:
        some = subset(transfer, size, sources)
        places = [
            folder
            / ("+".join(sources) or "labelled")
            / (f"{size:g}-seed{number}" if number else f"{size:g}")
            for number in range(recipe.seeds)
        ]
        logits = np.stack([probe(some, number, place) for number, place in enumerate(places)])
        scores = [_score(task, one, task.validation.labels) for one in logits]
        point = CurvePoint(
            len(some) / len(some.texts.labelled) - 1,
            sources,
            len(some),
            float(np.mean(scores)),
            float(np.std(scores, ddof=1)) if len(scores) > 1 else None,
        )
        answers[point] = logits
        return point

    points = [ask(0.0, ())]
    alone = [ask(sizes[0], (origin,)) for origin in origins] if len(origins) > 1 else []
    helpful = (
        tuple(point.sources[0] for point in alone if point.validation >= points[0].validation)
        if alone
        else origins
    )
    points += alone
    if helpful:
        counts = [len(subset(transfer, size, helpful)) for size in sizes]
        new = [
            size
            for size, count, before in zip(sizes, counts, [0, *counts], strict=False)
            if count > before
        ]  # a size that was not made adds nothing
        points += [
            ask(size, helpful) for size in new if len(helpful) > 1 or not alone or size > sizes[0]
        ]
    best = max(points, key=lambda point: point.validation)
    told = [
        replace(
            point,
            error=0.0
            if point is best
            else difference_error(task, answers[best], answers[point], task.validation),
        )
        for point in points
    ]
    line = [point for point in told if not point.sources or point.sources == helpful]
    near = [point for point in line if point.validation >= best.validation - point.error]
    return LearningCurve(
        tuple(told), min(near or [told[points.index(best)]], key=lambda point: point.texts)
    )


def difference_error(
    task: Task, first: np.ndarray, second: np.ndarray, split: Split, *, draws: int = 500
) -> float:
    """Standard error of what the metric of two students differs by, mean over S trainings of each with equal seeds: (S, N, C) logits both.

    Over texts by bootstrap samples of the split, the same for both (Efron 1979); over seeds by their own differences.
    """
    chance = np.random.default_rng(0)
    samples = chance.integers(0, len(split), (draws, len(split)))
    over_texts = np.nanstd(
        [np.mean(_differences(task, first, second, split.labels, rows)) for rows in samples]
    )
    of_seeds = _differences(task, first, second, split.labels, np.arange(len(split)))
    over_seeds = np.std(of_seeds, ddof=1) / np.sqrt(len(of_seeds)) if len(of_seeds) > 1 else 0.0
    return float(np.hypot(over_texts, over_seeds))


def _differences(
    task: Task, first: np.ndarray, second: np.ndarray, labels: np.ndarray, rows: np.ndarray
) -> list[float]:
    """(S,) of each training, on some rows."""
    return [
        _score(task, one[rows], labels[rows]) - _score(task, other[rows], labels[rows])
        for one, other in zip(first, second, strict=True)
    ]


def difficulty(student: np.ndarray, teacher: np.ndarray, kind: Kind) -> np.ndarray:
    """(N,) how often each training text is to be started from: how far the answers lie apart, and a tenth of the mean besides.

    Logits (N, C) of classes and labels are compared by KL of their probabilities, since a student is free to shift the
    former; numbers by their squared difference. The tenth keeps every text in play (Learning to Augment, without
    reinforcement learning: the reward is the divergence itself).
    """
    if student.shape != teacher.shape:
        raise UsageError(
            "student and teacher do not answer alike",
            f"{student.shape} and {teacher.shape}",
            "distill again with --force",
        )
    mine, theirs = (torch.from_numpy(logits.astype(np.float64)) for logits in (student, teacher))
    apart = losses.per_text(
        losses.logit_mse if kind == "regression" else logit_loss(ObjectiveConfig(), kind),
        mine,
        theirs,
    ).numpy()
    return np.asarray(apart + 0.1 * max(float(apart.mean()), 1e-12))


def _score(task: Task, logits: np.ndarray, labels: np.ndarray) -> float:
    return metrics.score(task.spec.metric, task.spec.kind, logits, labels)
