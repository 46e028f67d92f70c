"""How much of a base-size teacher do three students retain on six tasks, in fp32 and in int8?

    python benchmarks/studies/base_teacher.py runs/models
    for task in sst2 cola mrpc stsb rte trec; do
      kdedge distill benchmarks/studies/recipes/base-$task.toml --seeds 3 --threads 1
      for student in runs/base-$task*/{tinybert-4x312,tinybert-3x384-assisted,bilstm-assisted}; do
        kdedge export $student
      done
    done
    python benchmarks/studies/six_tasks.py sst2 cola mrpc stsb rte trec --student tinybert-4x312 \\
        --student tinybert-3x384-assisted --student bilstm-assisted

The last command reads the runs of all seeds of the named tasks. It prints a table of retention, and
one of gains over the label-only baselines. The runs of a task share the teacher and the texts; only
the seeds of the students differ.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click
import numpy as np
from kdedge.benchmarks.studies._seed_runs import SeedScores, TestTexts, check_student, runs_of
from kdedge.benchmarks.studies._variant_tables import markdown_row, mean_and_deviation

from kdedge.cli.main import main
from kdedge.data import load_task
from kdedge.data.task import Task
from kdedge.evaluation.bootstrap import bootstrap_rows
from kdedge.nn.text_model import read_measured
from kdedge.run.layout import RunDir
from kdedge.runtime import Classifier

HEADER = ["task", "student", "teacher", "fp32", "int8", "retention", "over seeds", "over texts"]
GAIN_HEADER = [
    "task",
    "student",
    "labels alone",
    "distilled",
    "gain",
    "over seeds",
    "over texts",
    "verdict",
]


@dataclass(frozen=True)
class Student:
    """One student on one task.

    Attributes:
        cells: Its row in the table of retention.
        gain: Its row in the table of gains; None if no baseline was trained.
        retention: The share of the teacher's score that its int8 file has.
    """

    name: str
    cells: list[str]
    gain: list[str] | None
    retention: SeedScores


def students_of(name: str, runs: list[RunDir], students: Sequence[str], seed: int) -> list[Student]:
    """Measure students of a task on its test texts.

    Args:
        name: The task.
        runs: Its run of each seed.
        students: Their names; an empty list measures all.
        seed: Draws the resamples.

    Raises:
        UsageError: If the recipe has no student of that name.
    """
    recipe = runs[0].recipe
    task = load_task(recipe.data, recipe.task, name=recipe.name, seed=recipe.seed)
    texts = TestTexts(task, bootstrap_rows(len(task.test), seed))
    teacher = texts.measure([read_measured(runs[0].teacher, task)[1]])
    chosen = students or list(runs[0].students)
    for student in chosen:
        check_student(runs[0], student)
    return [student_of(name, student, runs, texts, teacher) for student in chosen]


def student_of(
    task: str, name: str, runs: list[RunDir], texts: TestTexts, teacher: SeedScores
) -> Student:
    """Compare one student with its baseline and with the teacher."""
    folders = [run.students[name] for run in runs]
    fp32 = texts.measure([read_measured(each.student, texts.task)[1] for each in folders])
    int8 = texts.measure([int8_logits(each.bundle, texts.task) for each in folders])
    retention = int8.over(teacher)
    first = [f"{task}, {texts.task.spec.metric}", name]
    cells = [
        *first,
        f"{teacher.scores[0]:.4f}",
        mean_and_deviation(fp32.scores.tolist()),
        mean_and_deviation(int8.scores.tolist()),
        *retention_cells(retention),
    ]
    gain = None
    baselines = [baseline for baseline in map(partial(baseline_of, name), runs) if baseline]
    if len(baselines) == len(folders):
        alone = texts.measure([read_measured(each, texts.task)[1] for each in baselines])
        scores = [mean_and_deviation(each.scores.tolist()) for each in (alone, fp32)]
        gain = [*first, *scores, *fp32.minus(alone).cells()]
    return Student(name, cells, gain, retention)


def baseline_of(name: str, run: RunDir) -> Path | None:
    """Return the label-only baseline of a student; None if it was not trained.

    A student `NAME-assisted` is compared with the baseline of the student `NAME`. It has the same
    shape, and no first weights that were distilled.
    """
    alone = name.removesuffix("-assisted")
    return run.students[alone if alone in run.students else name].current_baseline()


def int8_logits(bundle: Path, task: Task) -> np.ndarray:
    """Ask the int8 file of a bundle: (N, C)."""
    return Classifier.load(bundle, "int8", threads=1).logits(task.test.texts, task.test.pairs)


def retention_cells(retention: SeedScores) -> list[str]:
    """Return the mean, and its intervals over seeds and over texts. One seed has no interval."""
    intervals = [
        "–" if math.isnan(low) else f"{100 * low:.1f} to {100 * high:.1f} %"
        for low, high in retention.intervals()
    ]
    return [f"{100 * retention.scores.mean():.1f} %", *intervals]


def mean_row(name: str, students: Sequence[Student]) -> list[str]:
    """Average a student's retention over tasks, seed by seed and resample by resample.

    Tasks have texts of their own, so their resamples are independent. If the tasks have different
    numbers of seeds, the mean is over the seeds that all of them have.
    """
    seeds = min(len(student.retention.scores) for student in students)
    scores = np.mean([student.retention.scores[:seeds] for student in students], axis=0)
    resampled = np.mean([student.retention.resampled[:seeds] for student in students], axis=0)
    cells = retention_cells(SeedScores(scores, resampled))
    seeds_in_words = "one seed" if seeds == 1 else f"{seeds} seeds"
    return [f"mean of {len(students)} tasks, {seeds_in_words}", name, *["–"] * 3, *cells]


def retention_table(students: Sequence[Student]) -> str:
    """Build the table of all tasks, with a mean for each student that all tasks have."""
    rows = [student.cells for student in students]
    for name in dict.fromkeys(student.name for student in students):
        same = [student for student in students if student.name == name]
        if len(same) > 1:
            rows.append(mean_row(name, same))
    return markdown_table(HEADER, rows)


def gain_table(students: Sequence[Student]) -> str:
    """Build the table of students and their label-only baselines; empty if there are none."""
    rows = [student.gain for student in students if student.gain]
    return markdown_table(GAIN_HEADER, rows) if rows else ""


def markdown_table(header: list[str], rows: Sequence[list[str]]) -> str:
    return "\n".join(markdown_row(cells) for cells in [header, ["---"] * len(header), *rows])


@click.command()
@click.argument("tasks", nargs=-1, required=True)
@click.option("--student", "students", multiple=True, help="Repeatable; default: all.")
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs"))
def study(tasks: tuple[str, ...], students: tuple[str, ...], runs: Path) -> None:
    """Print what the students of TASKS retain and gain. The run of a task is base-TASK."""
    measured: list[Student] = []
    for seed, task in enumerate(tasks):
        measured += students_of(task, runs_of(f"base-{task}", runs), students, seed)
    print(retention_table(measured), gain_table(measured), sep="\n\n")


if __name__ == "__main__":
    main(study)
