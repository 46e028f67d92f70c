"""What each part of a recipe adds: its student with all of them, and without one at a time; several seeds.

    python benchmarks/studies/leave_one_out.py RECIPE [--set KEY=VALUE ...] [--student NAME] [--seeds 3] [--threads 1]

Parts are what the recipe's student has: terms on layers, a stage for them, weights by example, labels beside logits, a start, and
texts beyond the labelled ones. `labels alone` is the student by its labels, on the labelled texts; without made texts, too, it takes fewer steps. Each training is a line of
runs/NAME/leave-one-out/runs.jsonl; a study that was cut off goes on after the last one. The table goes to stdout.
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
    TableRow,
    Variant,
    baseline,
    table,
    train_all,
)

from kdedge.cli.console import ConsoleProgress
from kdedge.cli.main import main
from kdedge.distillation.pipeline import prepare_context
from kdedge.distillation.student_training import DistillContext
from kdedge.distillation.transfer_stage import reject_auto_size
from kdedge.errors import UsageError
from kdedge.recipe import BiLstmConfig, ObjectiveConfig, Recipe, TinyBertConfig, load_recipe
from kdedge.run.layout import RunDir
from kdedge.run.stage import StageContext, read_stage
from kdedge.run.threads import settle_threads

TERMS = ("hidden", "attention", "embedding")


def variants(context: DistillContext, student: TinyBertConfig | BiLstmConfig) -> list[Variant]:
    """The whole first, then without each part, then without the teacher."""
    texts, labelled = context.transfer, context.transfer.texts.labelled
    found = [Variant("all", context, student)]
    found += [Variant(f"without {name}", context, changed) for name, changed in without(student)]
    if len(labelled) < len(texts):
        found.append(
            Variant("without made texts", replace(context, transfer=texts.take(labelled)), student)
        )
    return [*found, baseline("labels alone", context, student)]


def without(
    student: TinyBertConfig | BiLstmConfig,
) -> Iterator[tuple[str, TinyBertConfig | BiLstmConfig]]:
    """Each part that the student has, and the student that lacks it."""
    objective = student.objective
    terms = [term for term in TERMS if getattr(objective, f"{term}_weight")]
    for term in terms if len(terms) > 1 else []:
        yield f"{term} term", changed(student, objective=left_out(objective, term))
    if terms and objective.logits_weight + objective.labels_weight:
        ramp = {name: ends for name, ends in objective.ramp.items() if name not in TERMS}
        yield (
            "layers",
            changed(
                student,
                objective=objective.answers_alone().model_copy(update={"ramp": ramp}),
                layers_first=None,
            ),
        )
    if getattr(student, "layers_first", None):
        yield "a stage for layers", changed(student, layers_first=None)
    if objective.per_example:
        yield (
            "weights by example",
            changed(student, objective=objective.model_copy(update={"per_example": False})),
        )
    if objective.labels_weight and objective.logits_weight:
        yield (
            "labels",
            changed(
                student,
                objective=objective.model_copy(update={"labels_weight": 0.0, "per_example": False}),
            ),
        )
    if objective.balanced:
        yield (
            "balance",
            changed(student, objective=objective.model_copy(update={"balanced": False})),
        )
    if student.start != "scratch":
        yield f"start ({Path(student.start).name})", changed(student, start="scratch")


def left_out(objective: ObjectiveConfig, term: str) -> ObjectiveConfig:
    """The objective without one term on layers."""
    return objective.model_copy(
        update={
            f"{term}_weight": 0.0,
            "ramp": {name: ends for name, ends in objective.ramp.items() if name != term},
        }
    )


def changed(
    student: TinyBertConfig | BiLstmConfig, **changes: Any
) -> TinyBertConfig | BiLstmConfig:
    """A student with other values; keys that its kind does not have are left away."""
    return student.model_copy(
        update={key: value for key, value in changes.items() if key in type(student).model_fields}
    )


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE")
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs"))
@click.option("--seeds", type=click.IntRange(min=1), default=3)
@click.option("--student")
@click.option("--threads", type=click.IntRange(min=1))
def study(
    recipe: Path,
    overrides: tuple[str, ...],
    runs: Path,
    seeds: int,
    student: str | None,
    threads: int | None,
) -> None:
    """Train, compare, and print the table."""
    settled, progress = (
        settle_threads(load_recipe(recipe, overrides), runs, threads),
        ConsoleProgress(),
    )
    named = {Recipe.student_name(one): one for one in settled.student}
    if student is not None and student not in named:
        raise UsageError("the recipe has no such student", student, f"one of {', '.join(named)}")
    reject_auto_size(settled)
    run = RunDir.create(settled, runs)
    with run.locked():
        context = prepare_context(settled, run, stages=StageContext(progress=progress))
        found = variants(context, named[student] if student else settled.student[0])
        ledger = ResultLog(run.folder / "leave-one-out")
        made = train_all(
            found, [settled.training_seed + number for number in range(seeds)], ledger, progress
        )
    teacher, metric = read_stage(run.teacher)["result"]["test"], context.task.spec.metric
    print(
        f"# {settled.name}: what each part adds\n\nTeacher: {metric} {teacher:.4f} on {len(context.task.test):,} texts; {seeds} seeds.\n"
    )
    scores = Scores(context.task, ledger)
    lines = [
        TableRow(
            [one.name, f"{len(one.context.transfer):,}"],
            rows,
            None if rows is made[0] else scores.against(made[0], rows),
        )
        for one, rows in zip(found, made, strict=True)
    ]
    print(table(["student", "texts"], metric, "what is left out adds", lines, teacher))


if __name__ == "__main__":
    main(study)
