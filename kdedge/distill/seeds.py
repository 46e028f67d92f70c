"""The same students from several seeds: what of a score is the recipe, and what is luck."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from kdedge.distill.story import distill, scores
from kdedge.progress import SILENT, Progress
from kdedge.recipe import Recipe
from kdedge.rundir import Run

LEVEL = 0.95


@dataclass(frozen=True)
class Spread:
    """Scores of one model from several seeds."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))

    @property
    def sd(self) -> float:
        """Standard deviation of the scores (n - 1); NaN of a single one."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the mean over seeds (Student's t), which says nothing about other texts; NaN of a single score."""
        half = float(stats.t.ppf((1 + LEVEL) / 2, max(1, len(self.values) - 1))) * self.sd / math.sqrt(len(self.values))
        return self.mean - half, self.mean + half


def distill_seeds(recipe: Recipe, runs: Path, count: int, *, force: bool = False, progress: Progress = SILENT) -> list[Run]:
    """The recipe's run and, beside it, `count` - 1 runs with other seeds of the students; data and teacher are the same."""
    first = recipe.training_seed
    made = []
    for number in range(count):
        changes = {"name": f"{recipe.name}-seed{first + number}", "share": recipe.share or recipe.name, "student_seed": first + number}
        progress.say(f"seed {first + number}: {number + 1} of {count}")
        made.append(distill(recipe.model_copy(update=changes) if number else recipe, runs, force=force, progress=progress))
    return made


def spreads(runs: list[Run]) -> dict[str, Spread]:
    """Model -> its scores on the reported split, seed by seed; a teacher, which is the same in all runs, counts once."""
    rows: list[list[dict[str, Any]]] = [scores(run) for run in runs]
    found = {name: [row["report"] for run in rows for row in run if row["model"] == name] for name in (row["model"] for row in rows[0])}
    return {name: Spread(tuple(values[:1] if name.partition(" ")[0] == "teacher" else values)) for name, values in found.items()}
