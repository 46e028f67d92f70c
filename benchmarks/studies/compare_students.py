"""Is one student of a run better than another one, over the seeds of the run?

    kdedge distill RECIPE --seeds 3
    python benchmarks/studies/compare_students.py NAME STUDENT:REFERENCE ... [--runs runs]

NAME is the name of the recipe. Both students learn from the same texts and the same teacher in
every seed. The table has a row for each of them and the gain over its reference.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from kdedge.benchmarks.studies._seed_runs import SeedScores, TestTexts, runs_of
from kdedge.benchmarks.studies._variant_tables import markdown_row, mean_and_deviation

from kdedge.data import load_task
from kdedge.evaluation.bootstrap import bootstrap_rows
from kdedge.nn.text_model import read_measured
from kdedge.run.layout import RunDir
from kdedge.run.stage import read_result
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


def study() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name", help="name of the recipe")
    parser.add_argument("students", nargs="+", metavar="STUDENT:REFERENCE")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    arguments = parser.parse_args()
    runs = runs_of(arguments.name, arguments.runs)
    recipe = runs[0].recipe
    task = load_task(recipe.data, recipe.task, name=recipe.name, seed=recipe.seed)
    texts = TestTexts(task, bootstrap_rows(len(task.test), seed=0))
    teacher = read_result(runs[0].teacher, TeacherResult)
    print(f"Teacher: {teacher.metric} {teacher.test:.4f}; {len(runs)} seeds.\n")
    print(markdown_row(HEADER))
    print(markdown_row(["---"] * len(HEADER)))
    for pair in arguments.students:
        student, _, reference = pair.partition(":")
        print(markdown_row(row(runs, texts, student, reference)))


def row(runs: list[RunDir], texts: TestTexts, student: str, reference: str) -> list[str]:
    """Return the cells of one student; without a reference it is compared with none."""
    teacher = read_result(runs[0].teacher, TeacherResult).test
    scores, validation = measured(runs, texts, student)
    cells = [
        student,
        mean_and_deviation(scores.scores.tolist()),
        f"{100 * scores.scores.mean() / teacher:.1f} %",
        mean_and_deviation(validation),
    ]
    if not reference:
        return [*cells, *["–"] * 5]
    other, _ = measured(runs, texts, reference)
    return [*cells, reference, *scores.minus(other).cells()]


def measured(runs: list[RunDir], texts: TestTexts, student: str) -> tuple[SeedScores, list[float]]:
    """Return the scores of a student on the test texts, and those on the validation texts."""
    folders = [run.students[student].student for run in runs]
    read = [read_measured(folder, texts.task) for folder in folders]
    return texts.measure([logits for _, logits in read]), [result.validation for result, _ in read]


if __name__ == "__main__":
    study()
