"""The runs of all seeds of one recipe, and the scores of their models."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kdedge.data.task import Task
from kdedge.errors import UsageError
from kdedge.evaluation.bootstrap import bootstrap_scores, percentile_interval
from kdedge.evaluation.statistics import (
    Interval,
    PairedDifference,
    SeedStats,
    paired_difference,
)
from kdedge.run.layout import RunDir
from kdedge.runtime.metrics import score


@dataclass(frozen=True)
class SeedScores:
    """The scores of S models, one of each seed, on the test texts and on R resamples of them.

    Attributes:
        scores: *Shape:* (S,)
        resampled: *Shape:* (S, R)
    """

    scores: np.ndarray
    resampled: np.ndarray

    def over(self, teacher: SeedScores) -> SeedScores:
        """Divide by the scores of the teacher, which is one model."""
        return SeedScores(self.scores / teacher.scores, self.resampled / teacher.resampled)

    def minus(self, reference: SeedScores) -> PairedDifference:
        """Compare with a model of the same seeds."""
        return paired_difference(self.scores, reference.scores, self.resampled, reference.resampled)

    def intervals(self) -> tuple[Interval, Interval]:
        """Return the 95 % intervals of the mean over seeds, and over texts."""
        over_seeds = SeedStats(tuple(self.scores.tolist())).interval
        return over_seeds, percentile_interval(self.resampled.mean(0))


@dataclass(frozen=True)
class TestTexts:
    """The test split of a task, and its resamples (R, N)."""

    task: Task
    draws: np.ndarray

    def measure(self, logits: Sequence[np.ndarray]) -> SeedScores:
        """Score the logits (N, C) of each model."""
        spec, labels = self.task.spec, self.task.test.labels
        scores = [score(spec, rows, labels) for rows in logits]
        resampled = [bootstrap_scores(spec, rows, labels, self.draws) for rows in logits]
        return SeedScores(np.array(scores), np.stack(resampled))


def runs_of(name: str, runs: Path) -> list[RunDir]:
    """Return the run of that name, then those of its other seeds: NAME-seed1, NAME-seed2, ..."""
    others: dict[int, Path] = {}
    for path in runs.glob(f"{name}-seed*"):
        match = re.fullmatch(rf"{re.escape(name)}-seed(\d+)", path.name)
        if match:
            others[int(match[1])] = path
    folders = [runs / name, *(others[seed] for seed in sorted(others))]
    return [RunDir.open(folder)[0] for folder in folders]


def check_student(run: RunDir, name: str) -> None:
    """Raise UsageError if a run has no student of that name."""
    if name not in run.students:
        known = ", ".join(run.students)
        raise UsageError(f"the recipe {run.recipe.name} has no student {name}", known)
