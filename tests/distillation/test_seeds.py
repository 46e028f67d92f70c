"""Several seeds: one teacher, different students, statistics over their scores."""

from __future__ import annotations

import math
import shutil
from itertools import pairwise
from pathlib import Path

import factories
import numpy as np
import pytest
import torch

from kdedge.cli.distill import seeds_json, seeds_table
from kdedge.distillation.seeds import distill_seeds, distillation_gains, seed_stats
from kdedge.evaluation.statistics import SeedStats
from kdedge.run.stage import read_stage
from kdedge.students.build import load_student


def test_the_interval_over_seeds_is_students_t() -> None:
    """Three values: t(0.975, 2) = 4.303 (any table of Student's t)."""
    stats = SeedStats((0.8, 0.9, 1.0))
    assert (stats.mean, stats.sd) == (pytest.approx(0.9), pytest.approx(0.1))
    assert stats.interval == pytest.approx(
        (0.9 - 4.303 * 0.1 / 3**0.5, 0.9 + 4.303 * 0.1 / 3**0.5), abs=1e-4
    )
    assert SeedStats((0.8,)).mean == 0.8 and math.isnan(SeedStats((0.8,)).sd)


def test_seeds_change_only_the_students(tmp_path: Path) -> None:
    document = factories.write_data_and_teacher(tmp_path, train=48)
    recipe = factories.make_recipe(
        document, seed=5, student=factories.tinybert_config(baseline=True)
    )
    runs = distill_seeds(recipe, tmp_path / "runs", 3)
    assert [run.folder.name for run in runs] == ["r", "r-seed6", "r-seed7"]
    assert [run.recipe.training_seed for run in runs] == [5, 6, 7] and {
        run.teacher for run in runs
    } == {tmp_path / "runs" / "r" / "teacher"}
    weights = [
        load_student(run.folder / "student").state_dict()["classifier.weight"] for run in runs
    ]
    assert not any(torch.equal(a, b) for a, b in pairwise(weights))
    stats = seed_stats(runs)
    assert {name: len(model.values) for name, model in stats.items()} == {
        "teacher": 1,
        "tinybert": 3,
        "tinybert baseline": 3,
    }
    assert stats["tinybert"].values == tuple(
        read_stage(run.folder / "student").result["test"] for run in runs
    )
    assert seeds_table("r", stats).row_count == 3

    gain = distillation_gains(runs)["tinybert"]
    student = np.array(stats["tinybert"].values)
    baseline = np.array(stats["tinybert baseline"].values)
    assert gain.mean == pytest.approx((student - baseline).mean()) and gain.seeds == pytest.approx(
        SeedStats(tuple(student - baseline)).interval
    )
    assert gain.texts[0] <= gain.mean <= gain.texts[1] and gain.texts[0] < gain.texts[1]
    document = seeds_json(stats, {"tinybert": gain})
    assert document["distillation"]["tinybert"]["verdict"] == gain.verdict and str(gain).endswith(
        gain.verdict
    )
    shutil.move(runs[0].folder / "baseline", tmp_path / "baseline")
    assert distillation_gains(runs[:1]) == {}
    shutil.move(tmp_path / "baseline", runs[0].folder / "baseline")

    first = [(run.folder / "student" / "stage.json").stat().st_mtime_ns for run in runs]
    again = distill_seeds(recipe, tmp_path / "runs", 3)
    assert [(run.folder / "student" / "stage.json").stat().st_mtime_ns for run in again] == first, (
        "finished seeds are not trained again"
    )
