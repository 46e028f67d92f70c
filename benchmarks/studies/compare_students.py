"""Is one student of a run better than another one, over the seeds of the run?

    kdedge distill RECIPE --seeds 3
    python benchmarks/studies/compare_students.py NAME STUDENT:REFERENCE ... [--runs runs]

NAME is the name of the recipe. The table has a row for each student and the gain over its
reference. A student of another run is written RUN/STUDENT: runs can learn from different texts, but
all need the same teacher and the same test split.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path

import click
from kdedge.benchmarks.studies._seed_runs import SeedScores, TestTexts, check_student, runs_of
from kdedge.benchmarks.studies._variant_tables import markdown_row, mean_and_deviation

from kdedge.cli.main import main
from kdedge.data import load_task
from kdedge.errors import UsageError
from kdedge.evaluation.bootstrap import bootstrap_rows
from kdedge.nn.text_model import read_measured
from kdedge.run.layout import RunDir
from kdedge.run.stage import read_result
from kdedge.teacher.finetune import teacher_hash
from kdedge.teacher.result import TeacherResult

HEADER = [
    "student",
    "score",
    "retention",
    "validation",
    "gain over",
    "gain",
    "95 % over seeds",
    "95 % over texts",
    "verdict",
]


@click.command()
@click.argument("name")
@click.argument("pairs", nargs=-1, required=True, metavar="STUDENT:REFERENCE...")
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs"))
def study(name: str, pairs: tuple[str, ...], runs: Path) -> None:
    """Print a table of students of the recipe NAME, over all seeds."""
    students = SeedStudents(runs, name)
    teacher = students.teacher(name)
    seeds = len(students.runs(name))
    print(f"Teacher: {teacher.metric} {teacher.test:.4f}; {seeds} seeds.\n")
    print(markdown_row(HEADER))
    print(markdown_row(["---"] * len(HEADER)))
    for pair in pairs:
        student, _, reference = pair.partition(":")
        print(markdown_row(row(students, student, reference)))


def seeds_of(runs: Sequence[RunDir]) -> list[int]:
    """Return the seed of the students of each run."""
    return [run.recipe.training_seed for run in runs]


class SeedStudents:
    """The students of some runs, over all seeds, measured on one test split.

    Args:
        folder: Holds the runs.
        name: The run whose test split counts.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name
        self.runs = cache(partial(runs_of, runs=folder))
        recipe = self.runs(name)[0].recipe
        task = load_task(recipe.data, recipe.task, name=recipe.name, seed=recipe.seed)
        self.texts = TestTexts(task, bootstrap_rows(len(task.test), seed=0))

    def teacher(self, run: str) -> TeacherResult:
        return read_result(self.runs(run)[0].teacher, TeacherResult)

    def measure(self, student: str) -> tuple[SeedScores, list[float]]:
        """Return the scores of STUDENT or RUN/STUDENT on the test and on the validation texts.

        Raises:
            UsageError: If the run lacks the student, or has another teacher or other seeds.
        """
        run, _, name = student.rpartition("/")
        run = run or self.name
        runs = self.runs(run)
        check_student(runs[0], name)
        if teacher_hash(runs[0]) != teacher_hash(self.runs(self.name)[0]):
            raise UsageError("the runs have different teachers", f"{run} and {self.name}")
        seeds, own = seeds_of(runs), seeds_of(self.runs(self.name))
        if seeds != own:
            raise UsageError("the runs have different seeds", f"{run}: {seeds}, {self.name}: {own}")
        folders = [each.students[name].student for each in runs]
        read = [read_measured(folder, self.texts.task) for folder in folders]
        scores = self.texts.measure([logits for _, logits in read])
        return scores, [result.validation for result, _ in read]


def row(students: SeedStudents, student: str, reference: str) -> list[str]:
    """Return the cells of one student; without a reference it is compared with none."""
    teacher = students.teacher(students.name).test
    scores, validation = students.measure(student)
    cells = [
        student,
        mean_and_deviation(scores.scores.tolist()),
        f"{100 * scores.scores.mean() / teacher:.1f} %",
        mean_and_deviation(validation),
    ]
    if not reference:
        return [*cells, *["–"] * 5]
    other, _ = students.measure(reference)
    return [*cells, reference, *scores.minus(other).cells()]


if __name__ == "__main__":
    main(study)
