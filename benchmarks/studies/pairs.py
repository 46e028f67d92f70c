"""What helps a BiLSTM on pairs: attention between the two texts, or recombined pairs?

    python benchmarks/studies/pairs.py RECIPE [--set KEY=VALUE ...] [--student NAME]
        [--seeds 3] [--threads 1]

RECIPE has [augment.recombine]. Every student of the recipe is trained on all texts, and without
the recombined pairs for as many steps. The first student without them is the reference.

Each training is a line of runs/NAME/pairs/runs.jsonl. An interrupted study resumes after the last
line. The table goes to stdout. The validation split only chooses checkpoints; the scores are on
the test split.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import click
from kdedge.benchmarks.studies._experiments import (
    ResultLog,
    Scores,
    StudyArguments,
    TrainingVariant,
    study_command,
    train_all,
)
from kdedge.benchmarks.studies._variant_tables import lines_against_first, table

from kdedge.cli.main import main
from kdedge.distillation.student_training import DistillContext
from kdedge.recipe import StudentConfig


def variants(context: DistillContext, students: Iterable[StudentConfig]) -> list[TrainingVariant]:
    """List each student without recombined pairs, then with them, at equal steps."""
    transfer = context.transfer
    others = [origin for origin in dict.fromkeys(transfer.texts.origins) if origin != "recombine"]
    part = transfer.take(transfer.texts.rows(*others))
    factor = len(transfer) / len(part)
    without, recombined = [], []
    for student in students:
        fit = student.fit.model_copy(update={"epochs": student.fit.epochs * factor})
        longer = student.model_copy(update={"fit": fit})
        without.append(TrainingVariant(student.key, replace(context, transfer=part), longer))
        recombined.append(TrainingVariant(f"{student.key}, recombined pairs", context, student))
    return without + recombined


@study_command
@click.option("--student", "students", multiple=True, help="Default: all of the recipe.")
def study(arguments: StudyArguments, students: tuple[str, ...]) -> None:
    """Train, compare, and print the table."""
    named = [arguments.student(name) for name in students or arguments.students()]
    with arguments.prepared() as (run, context, teacher):
        listed = variants(context, named)
        log = ResultLog(run.folder / "pairs")
        results = train_all(listed, arguments.seeds, log, arguments.progress)
    metric = context.task.spec.metric
    print(f"# {arguments.recipe.name}: attention between texts, and recombined pairs\n")
    print(
        f"Teacher: {metric} {teacher.test:.4f} on {len(context.task.test):,} pairs;"
        f" {len(arguments.seeds)} seeds.\n"
    )
    scores = Scores(context.task, log)
    lines = lines_against_first(listed, results, scores)
    gain = f"gain over {listed[0].name}"
    print(table(["student", "pairs"], metric, gain, lines, teacher.test))


if __name__ == "__main__":
    main(study)
