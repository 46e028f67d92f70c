"""Train the same students from several seeds and compare them over seeds and texts."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from kdedge.data import load_task
from kdedge.data.task import Task
from kdedge.distillation.pipeline import distill
from kdedge.distillation.scores import scores
from kdedge.evaluation.bootstrap import bootstrap_rows, bootstrap_scores
from kdedge.evaluation.statistics import PairedDifference, SeedStats, paired_difference
from kdedge.nn.text_model import MeasuredResult
from kdedge.recipe import Recipe
from kdedge.run.layout import RunDir
from kdedge.run.stage import DEFAULT_STAGES, StageContext, read_result
from kdedge.run.threads import settle_threads


def distill_seeds(
    recipe: Recipe,
    runs: Path,
    count: int,
    *,
    task: Task | None = None,
    stages: StageContext = DEFAULT_STAGES,
) -> list[RunDir]:
    """Distill `count` times with consecutive student seeds; data and teacher are shared.

    `task` is the recipe's task if it is already loaded.
    """
    recipe = settle_threads(recipe, runs, None)
    first_seed = recipe.training_seed
    finished = []
    for number in range(count):
        seed = first_seed + number
        seed_recipe = recipe
        if number > 0:
            changes = {
                "name": f"{recipe.name}-seed{seed}",
                "share": recipe.share or recipe.name,
                "student_seed": seed,
            }
            seed_recipe = recipe.model_copy(update=changes)
        if count > 1:
            stages.progress.say(f"seed {seed}: {number + 1} of {count}")
        seed_task = task and replace(task, spec=replace(task.spec, name=seed_recipe.name))
        finished.append(distill(seed_recipe, runs, task=seed_task, stages=stages))
    return finished


def seed_stats(runs: list[RunDir]) -> dict[str, SeedStats]:
    """Return model -> test scores of all seeds; the teacher, shared by all runs, has one score."""
    values: dict[str, list[float]] = {}
    for run in runs:
        for row in scores(run):
            if row.is_teacher and row.model in values:
                continue
            values.setdefault(row.model, []).append(row.test)
    return {name: SeedStats(tuple(of_model)) for name, of_model in values.items()}


def distillation_gains(runs: list[RunDir]) -> dict[str, PairedDifference]:
    """Return student -> its test scores minus those of its label-only baseline, over seeds.

    Students without a baseline are left out.
    """
    pairs: dict[str, list[tuple[Path, Path]]] = {}
    for run in runs:
        for name, folders in run.students.items():
            baseline = folders.current_baseline()
            if baseline:
                pairs.setdefault(name, []).append((folders.student, baseline))
    if not pairs:
        return {}
    recipe = runs[0].recipe
    task = load_task(recipe.data, recipe.task, name=recipe.name, seed=recipe.seed)
    return {name: _compare(task, of_student) for name, of_student in pairs.items()}


def _compare(task: Task, pairs: list[tuple[Path, Path]]) -> PairedDifference:
    """Compare student and baseline over seeds; each pair holds the two folders of a seed."""
    rows = bootstrap_rows(len(task.test), seed=0)
    students, baselines = zip(*pairs, strict=True)
    return paired_difference(
        _test_scores(students),
        _test_scores(baselines),
        _resampled_scores(task, students, rows),
        _resampled_scores(task, baselines, rows),
    )


def _test_scores(folders: tuple[Path, ...]) -> np.ndarray:
    """Read the test scores of the models in S stage folders. *Shape:* (S,)"""
    return np.array([read_result(folder, MeasuredResult).test for folder in folders])


def _resampled_scores(task: Task, folders: tuple[Path, ...], rows: np.ndarray) -> np.ndarray:
    """Score S models on R resamples (`rows`) of the test texts. *Shape:* (S, R)"""
    resampled = []
    for folder in folders:
        logits = np.load(folder / "test_logits.npy", allow_pickle=False)
        resampled.append(bootstrap_scores(task.spec, logits, task.test.labels, rows))
    return np.stack(resampled)


def seeds_json(stats: dict[str, SeedStats], gains: dict[str, PairedDifference]) -> dict[str, Any]:
    """Return the scores by seed and the gains from distillation, as JSON values."""
    distillation = {}
    for name, gain in gains.items():
        distillation[name] = asdict(gain) | {"verdict": gain.verdict}
    seeds = {name: model_stats.values for name, model_stats in stats.items()}
    return {"seeds": seeds, "distillation": distillation}
