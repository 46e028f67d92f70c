"""The same students from several seeds: what of a score is the recipe, and what is luck."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from kdedge.data import load_task
from kdedge.data.task import Task
from kdedge.distill.story import distill, scores
from kdedge.progress import SILENT, Progress
from kdedge.recipe import Recipe
from kdedge.resampling import interval, resampled_scores, resamples
from kdedge.rundir import Run, read_stage

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


@dataclass(frozen=True)
class Comparison:
    """Scores on the reported split less those of a reference, at equal seeds.

    seeds: 95 % interval of the mean over seeds (Student's t), which says nothing about other texts.
    texts: 95 % interval of the mean over resampled texts (paired bootstrap), which says nothing about other seeds.
    """

    mean: float
    seeds: tuple[float, float]
    texts: tuple[float, float]

    @property
    def verdict(self) -> str:
        """`better` or `worse` where both intervals, each by itself, exclude 0, else `undecided`."""
        ends = (*self.seeds, *self.texts)
        if any(map(math.isnan, ends)):
            return "one seed"
        if self.seeds[0] == self.seeds[1]:
            return "undecided"  # seeds that all differ by as many answers are too few to tell what others would
        return "better" if min(ends) > 0 else "worse" if max(ends) < 0 else "undecided"

    def __str__(self) -> str:
        mean, seeds, texts, verdict = self.cells()
        return f"{mean} (95 % over seeds {seeds}, over texts {texts}): {verdict}"

    def cells(self) -> list[str]:
        """Mean, both intervals and the verdict, for a table."""
        intervals = ["–" if math.isnan(low) else f"{low:+.4f} to {high:+.4f}" for low, high in (self.seeds, self.texts)]
        return [f"{self.mean:+.4f}", *intervals, self.verdict]


def compare(mine: np.ndarray, theirs: np.ndarray, my_draws: np.ndarray, their_draws: np.ndarray) -> Comparison:
    """mine, theirs: (S,) scores by seed; my_draws, their_draws: (S, R) the same on R resamples of the texts."""
    spread = Spread(tuple((mine - theirs).tolist()))
    return Comparison(spread.mean, spread.interval, interval((my_draws - their_draws).mean(0)))


def distillation_gains(runs: list[Run]) -> dict[str, Comparison]:
    """Student name -> what the teacher taught it: its scores on the reported split less those of its undistilled twin, seed by seed, where it has one."""
    recipe = runs[0].recipe
    twins = {name: [(run.homes[name] / "student", run.undistilled(name)) for run in runs] for name in runs[0].homes}
    told = {name: [(mine, twin) for mine, twin in pairs if twin] for name, pairs in twins.items()}
    if not any(told.values()):
        return {}
    task = load_task(recipe.data, recipe.task, name=recipe.name, seed=recipe.seed)
    return {name: _compared(task, pairs) for name, pairs in told.items() if pairs}


def _compared(task: Task, pairs: list[tuple[Path, Path]]) -> Comparison:
    """The first folders of the pairs less the second ones."""
    draws = resamples(len(task.report), seed=0)
    scores = [np.array([read_stage(folder)["result"]["report"] for folder in folders]) for folders in zip(*pairs, strict=True)]
    resampled = [
        np.stack([resampled_scores(task.spec, _answers(folder), task.report.labels, draws) for folder in folders]) for folders in zip(*pairs, strict=True)
    ]
    return compare(*scores, *resampled)


def _answers(folder: Path) -> np.ndarray:
    """Logits (N, C) of a stage's model on the reported split."""
    answers: np.ndarray = np.load(folder / "report_logits.npy", allow_pickle=False)
    return answers


def seeds_json(found: dict[str, Spread], taught: dict[str, Comparison]) -> dict[str, Any]:
    """Model -> its scores by seed, and student -> what distillation gave it."""
    gained = {name: asdict(gain) | {"verdict": gain.verdict} for name, gain in taught.items()}
    return {"seeds": {name: spread.values for name, spread in found.items()}, "distillation": gained}
