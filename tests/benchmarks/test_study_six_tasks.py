"""The tables of six tasks and of two students: scores, retention, gains, and means over tasks."""

from __future__ import annotations

import math
import shutil
import statistics
from pathlib import Path

import compare_students
import factories
import numpy as np
import pytest
import six_tasks
from click.testing import CliRunner
from scipy import stats
from six_tasks import SeedScores, Student, gain_table, retention_table, students_of

from kdedge.cli.main import cli
from kdedge.distillation.seeds import distill_seeds
from kdedge.errors import UsageError
from kdedge.run.layout import RunDir
from kdedge.runtime import Classifier

SEEDS = 2


def measured(scores: list[float]) -> SeedScores:
    return SeedScores(np.array(scores), np.tile(scores, (10, 1)).T)


def test_the_mean_over_tasks_is_taken_seed_by_seed() -> None:
    rows = {"a": [0.9, 1.0, 0.8], "b": [0.7, 0.6, 0.8]}
    students = [Student("bilstm", [], None, measured(scores)) for scores in rows.values()]
    cells = six_tasks.mean_row("bilstm", students)
    assert cells[0] == "mean of 2 tasks, 3 seeds"
    # Every seed has a mean of 0.8 over the tasks, so the interval over seeds has no width.
    assert cells[-3:] == ["80.0 %", "80.0 to 80.0 %", "80.0 to 80.0 %"]


def test_the_mean_is_over_the_seeds_that_all_tasks_have() -> None:
    students = [Student("bilstm", [], None, measured(scores)) for scores in ([0.9, 0.5], [0.7])]
    cells = six_tasks.mean_row("bilstm", students)
    assert cells[0] == "mean of 2 tasks, one seed"
    assert cells[-3:] == ["80.0 %", "–", "80.0 to 80.0 %"]


def test_a_student_of_one_task_alone_has_no_mean() -> None:
    cells = ["-"] * len(six_tasks.HEADER)
    students = [Student(name, cells, None, measured([0.9, 0.8])) for name in ("a", "b", "b")]
    assert [line.split(" | ")[1] for line in retention_table(students).splitlines()[5:]] == ["b"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[RunDir]:
    """Distill two students from two seeds."""
    folder = tmp_path_factory.mktemp("six-tasks")
    document = factories.write_data_and_teacher(folder)
    fit = {"epochs": 2.0, "learning_rate": 3e-3}
    students = [
        factories.tinybert_config(name="a", baseline=True, fit=fit),
        factories.tinybert_config(name="a-assisted"),
    ]
    recipe = factories.make_recipe(document, name="base-x", student=students)
    return distill_seeds(recipe, folder / "runs", SEEDS)


@pytest.mark.slow
def test_a_student_is_compared_with_another_one(runs: list[RunDir]) -> None:
    folder = str(runs[0].folder.parent)
    pairs = ["a:a-assisted", "a-assisted", "base-x/a:a-assisted"]
    unknown = CliRunner().invoke(compare_students.study, ["base-x", "zz:a", "--runs", folder])
    assert isinstance(unknown.exception, UsageError) and "no student zz" in str(unknown.exception)
    answer = CliRunner().invoke(compare_students.study, ["base-x", *pairs, "--runs", folder])
    assert answer.exit_code == 0, answer.output
    *rows, other = [line.split(" | ") for line in answer.stdout.splitlines()[-3:]]
    assert other[0].strip("| ") == "base-x/a" and other[1:] == rows[0][1:]
    labels = factories.sentences(factories.SPLIT_SIZES["test"], factories.SPLIT_SEEDS["test"])[1]
    first = [accuracy(logits_of(run, "a/student"), labels) for run in runs]
    second = [accuracy(logits_of(run, "a-assisted/student"), labels) for run in runs]
    teacher = accuracy(np.load(runs[0].teacher / "test_logits.npy"), labels)
    expected = f"{statistics.mean(first):.4f} ± {statistics.stdev(first):.4f}"
    assert rows[0][0].strip("| ") == "a" and rows[0][1] == expected
    assert rows[0][2] == f"{100 * statistics.mean(first) / teacher:.1f} %"
    assert rows[0][4:6] == [
        "a-assisted",
        f"{statistics.mean(first) - statistics.mean(second):+.4f}",
    ]
    assert set(rows[1][4:-1]) == {"–"}


@pytest.mark.slow
def test_students_of_other_seeds_are_not_compared(runs: list[RunDir]) -> None:
    students = compare_students.SeedStudents(runs[0].folder.parent, "base-x")
    with pytest.raises(UsageError, match="different seeds"):
        students.measure("base-x-seed1/a")


@pytest.mark.slow
def test_students_of_another_teacher_are_not_compared(runs: list[RunDir], tmp_path: Path) -> None:
    """Not even if both teachers have the same score."""
    for run in runs:
        for name in ("base-x", "base-y"):
            copy = tmp_path / run.folder.name.replace("base-x", name)
            shutil.copytree(run.folder, copy)
    students = compare_students.SeedStudents(tmp_path, "base-x")
    students.measure("base-y/a")
    with (tmp_path / "base-y" / "teacher" / "model.safetensors").open("ab") as weights:
        weights.write(b"x")
    with pytest.raises(UsageError, match="different teachers"):
        students.measure("base-y/a")


def test_a_run_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    answer = CliRunner().invoke(six_tasks.study, ["trec", "--runs", str(tmp_path)])
    assert isinstance(answer.exception, UsageError), answer.output


@pytest.mark.slow
def test_a_row_has_the_scores_of_all_seeds(runs: list[RunDir]) -> None:
    for run in runs:
        answer = CliRunner().invoke(cli, ["export", str(run.folder), "--no-qat"])
        assert answer.exit_code == 0, answer.output
    found = six_tasks.runs_of("base-x", runs[0].folder.parent)
    row, assisted = students_of("x", found, [], 0)
    assert row.gain and assisted.gain
    assert assisted.gain[2] == row.gain[2], "it is compared with the baseline of `a`"
    assert len(gain_table([row, assisted]).splitlines()) == 4
    (only,) = students_of("x", found, ["a-assisted"], 0)
    assert only.cells == assisted.cells
    with pytest.raises(UsageError, match="no student b"):
        students_of("x", found, ["b"], 0)

    texts, labels = factories.sentences(
        factories.SPLIT_SIZES["test"], factories.SPLIT_SEEDS["test"]
    )
    teacher = accuracy(np.load(runs[0].teacher / "test_logits.npy"), labels)
    fp32 = [accuracy(logits_of(run, "a/student"), labels) for run in runs]
    alone = [accuracy(logits_of(run, "a/baseline"), labels) for run in runs]
    int8 = [accuracy(int8_logits(run, texts), labels) for run in runs]
    cells = dict(zip(six_tasks.HEADER, row.cells, strict=True))
    assert cells["teacher"] == f"{teacher:.4f}"
    gains = dict(zip(six_tasks.GAIN_HEADER, row.gain, strict=True))
    for cell, scores in (
        (cells["fp32"], fp32),
        (cells["int8"], int8),
        (gains["labels alone"], alone),
        (gains["distilled"], fp32),
    ):
        assert cell == f"{statistics.mean(scores):.4f} ± {statistics.stdev(scores):.4f}"
    gain = np.mean(fp32) - np.mean(alone)
    assert gains["gain"] == f"{gain:+.4f}"
    kept = np.array(int8) / teacher
    half = stats.t.ppf(0.975, SEEDS - 1) * kept.std(ddof=1) / math.sqrt(SEEDS)
    low, high = kept.mean() - half, kept.mean() + half
    assert cells["retention"] == f"{100 * kept.mean():.1f} %"
    assert cells["over seeds"] == f"{100 * low:.1f} to {100 * high:.1f} %"


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean(logits.argmax(1) == labels))


def logits_of(run: RunDir, model: str) -> np.ndarray:
    return np.asarray(np.load(run.folder / model / "test_logits.npy"))


def int8_logits(run: RunDir, texts: tuple[str, ...]) -> np.ndarray:
    return Classifier.load(run.folder / "a" / "bundle", "int8").logits(texts)
