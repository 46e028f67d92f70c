"""What does each part of a recipe add? Train the student with all parts, then without each part.

    python benchmarks/studies/leave_one_out.py RECIPE [--set KEY=VALUE ...] [--student NAME]
        [--seeds 3] [--threads 1]

Parts are what the recipe's student has: terms on layers, a stage for them, labels next to
logits, a start, and texts beyond the labelled ones. `labels alone` is the
label-only baseline. Without generated texts a student takes fewer steps.

Each training is a line of runs/NAME/leave-one-out/runs.jsonl. An interrupted study resumes after
the last line. The table goes to stdout.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from kdedge.benchmarks.studies._experiments import (
    ResultLog,
    Scores,
    StudyArguments,
    TrainingVariant,
    baseline,
    study_command,
    train_all,
)
from kdedge.benchmarks.studies._variant_tables import lines_against_first, table

from kdedge.cli.main import main
from kdedge.distillation.student_training import DistillContext
from kdedge.recipe import ObjectiveConfig, StudentConfig
from kdedge.recipe.checks import reject_auto_size

TERMS = ("hidden", "attention", "embedding")


def variants(context: DistillContext, student: StudentConfig) -> list[TrainingVariant]:
    """List the whole recipe, then the recipe without each part, then the baseline."""
    transfer = context.transfer
    labelled = transfer.texts.labelled
    listed = [TrainingVariant("all", context, student)]
    for name, changed in without(student):
        listed.append(TrainingVariant(f"without {name}", context, changed))
    if len(labelled) < len(transfer):
        labelled_only = replace(context, transfer=transfer.take(labelled))
        listed.append(TrainingVariant("without generated texts", labelled_only, student))
    listed.append(baseline("labels alone", context, student))
    return listed


def without(student: StudentConfig) -> Iterator[tuple[str, StudentConfig]]:
    """Yield each part that the student has, and the student without it."""
    objective = student.objective
    terms = [term for term in TERMS if getattr(objective, f"{term}_weight")]
    if len(terms) > 1:
        for term in terms:
            yield f"{term} term", change(student, objective=without_term(objective, term))
    if terms and objective.logits_weight + objective.labels_weight:
        yield "layers", change(student, objective=objective.outputs_alone(), layers_first=None)
    if getattr(student, "layers_first", None):
        yield "a stage for layers", change(student, layers_first=None)
    if objective.labels_weight and objective.logits_weight:
        yield "labels", change(student, objective=without_term(objective, "labels"))
    if student.start != "scratch":
        yield f"start ({Path(student.start).name})", change(student, start="scratch")


def without_term(objective: ObjectiveConfig, term: str) -> ObjectiveConfig:
    """Remove one term of the loss."""
    return objective.model_copy(update={f"{term}_weight": 0.0})


def change(student: StudentConfig, **changes: Any) -> StudentConfig:
    """Change values of a student; ignore keys that its kind does not have."""
    fields = type(student).model_fields
    return student.model_copy(update={key: changes[key] for key in changes if key in fields})


@study_command
@click.option("--student")
def study(arguments: StudyArguments, student: str | None) -> None:
    """Train, compare, and print the table."""
    config = arguments.student(student)
    reject_auto_size(arguments.recipe)
    with arguments.prepared() as (run, context, teacher):
        listed = variants(context, config)
        log = ResultLog(run.folder / "leave-one-out")
        results = train_all(listed, arguments.seeds, log, arguments.progress)
    metric = context.task.spec.metric
    print(f"# {arguments.recipe.name}: what each part adds\n")
    print(
        f"Teacher: {metric} {teacher.test:.4f} on {len(context.task.test):,} texts;"
        f" {len(arguments.seeds)} seeds.\n"
    )
    scores = Scores(context.task, log)
    lines = lines_against_first(listed, results, scores, gain_of_first=True)
    print(table(["student", "texts"], metric, "what the part adds", lines, teacher.test))


if __name__ == "__main__":
    main(study)
