"""Is one student of a run better than another one, over the seeds of the run?

    kdedge distill RECIPE --seeds 3
    python benchmarks/studies/compare_students.py NAME STUDENT:REFERENCE ... [--runs runs]

NAME is the name of the recipe. Both students learn from the same texts and the same teacher in
every seed. The table has a row for each of them and the gain over its reference.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from kdedge.benchmarks.studies._seed_runs import runs_of
from kdedge.benchmarks.studies._variant_tables import markdown_row, mean_and_deviation

from kdedge.data import load_task
from kdedge.data.task import Task
from kdedge.evaluation.bootstrap import bootstrap_rows, bootstrap_scores
from kdedge.evaluation.statistics import paired_difference
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
    teacher = read_result(runs[0].teacher, TeacherResult)
    print(f"Teacher: {teacher.metric} {teacher.test:.4f}; {len(runs)} seeds.\n")
    print(markdown_row(HEADER))
    print(markdown_row(["---"] * len(HEADER)))
    for pair in arguments.students:
        student, _, reference = pair.partition(":")
        print(markdown_row(row(runs, task, student, reference, teacher.test)))


def row(runs: list[RunDir], task: Task, student: str, reference: str, teacher: float) -> list[str]:
    """Return the cells of one student; without a reference it is compared with none."""
    scores, validation, resampled = measured(runs, task, student)
    cells = [
        student,
        mean_and_deviation(scores.tolist()),
        f"{100 * scores.mean() / teacher:.1f} %",
        mean_and_deviation(validation.tolist()),
    ]
    if not reference:
        return [*cells, *["–"] * 5]
    other_scores, _, other_resampled = measured(runs, task, reference)
    difference = paired_difference(scores, other_scores, resampled, other_resampled)
    return [*cells, reference, *difference.cells()]


def measured(
    runs: list[RunDir], task: Task, student: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return test scores (S,), validation scores (S,) and scores of R resamples (S, R)."""
    draws = bootstrap_rows(len(task.test), seed=0)
    scores, validation, resampled = [], [], []
    for run in runs:
        result, logits = read_measured(run.students[student].student, task)
        scores.append(result.test)
        validation.append(result.validation)
        resampled.append(bootstrap_scores(task.spec, logits, task.test.labels, draws))
    return np.array(scores), np.array(validation), np.stack(resampled)


if __name__ == "__main__":
    study()
