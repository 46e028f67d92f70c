"""The same students from several seeds: what of a score is the recipe, and what is luck."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from kdedge.data import load_task
from kdedge.data.task import Task
from kdedge.distillation.pipeline import distill, scores
from kdedge.evaluation.bootstrap import bootstrap_rows, bootstrap_scores
from kdedge.evaluation.statistics import PairedDifference, SeedStats, paired_difference
from kdedge.recipe import Recipe
from kdedge.run.layout import RunDir
from kdedge.run.stage import DEFAULT_STAGES, StageContext, read_stage


def distill_seeds(
    recipe: Recipe, runs: Path, count: int, *, stages: StageContext = DEFAULT_STAGES
) -> list[RunDir]:
    """The recipe's run and, beside it, `count` - 1 runs with other seeds of the students; data and teacher are the same."""
    first = recipe.training_seed
    made = []
    for number in range(count):
        changes = {
            "name": f"{recipe.name}-seed{first + number}",
            "share": recipe.share or recipe.name,
            "student_seed": first + number,
        }
        stages.progress.say(f"seed {first + number}: {number + 1} of {count}")
        made.append(
            distill(
                recipe.model_copy(update=changes) if number else recipe,
                runs,
                stages=stages,
            )
        )
    return made


def seed_stats(runs: list[RunDir]) -> dict[str, SeedStats]:
    """Model -> its scores on the test split, seed by seed; a teacher, which is the same in all runs, counts once."""
    rows: list[list[dict[str, Any]]] = [scores(run) for run in runs]
    found = {
        name: [row["test"] for run in rows for row in run if row["model"] == name]
        for name in (row["model"] for row in rows[0])
    }
    return {
        name: SeedStats(tuple(values[:1] if name.partition(" ")[0] == "teacher" else values))
        for name, values in found.items()
    }


def distillation_gains(runs: list[RunDir]) -> dict[str, PairedDifference]:
    """Student name -> what the teacher taught it: its scores on the test split less those of its label-only baseline, seed by seed, where it has one."""
    recipe = runs[0].recipe
    baselines = {
        name: [(run.student_dirs[name] / "student", run.baseline_dir(name)) for run in runs]
        for name in runs[0].student_dirs
    }
    told = {
        name: [(mine, baseline) for mine, baseline in pairs if baseline]
        for name, pairs in baselines.items()
    }
    if not any(told.values()):
        return {}
    task = load_task(recipe.data, recipe.task, name=recipe.name, seed=recipe.seed)
    return {name: _compared(task, pairs) for name, pairs in told.items() if pairs}


def _compared(task: Task, pairs: list[tuple[Path, Path]]) -> PairedDifference:
    """The first folders of the pairs less the second ones."""
    draws = bootstrap_rows(len(task.test), seed=0)
    scores = [
        np.array([read_stage(folder)["result"]["test"] for folder in folders])
        for folders in zip(*pairs, strict=True)
    ]
    resampled = [
        np.stack(
            [
                bootstrap_scores(task.spec, _answers(folder), task.test.labels, draws)
                for folder in folders
            ]
        )
        for folders in zip(*pairs, strict=True)
    ]
    return paired_difference(*scores, *resampled)


def _answers(folder: Path) -> np.ndarray:
    """Logits (N, C) of a stage's model on the test split."""
    answers: np.ndarray = np.load(folder / "test_logits.npy", allow_pickle=False)
    return answers


def seeds_json(found: dict[str, SeedStats], taught: dict[str, PairedDifference]) -> dict[str, Any]:
    """Model -> its scores by seed, and student -> what distillation gave it."""
    gained = {name: asdict(gain) | {"verdict": gain.verdict} for name, gain in taught.items()}
    return {
        "seeds": {name: spread.values for name, spread in found.items()},
        "distillation": gained,
    }
