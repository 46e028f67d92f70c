"""Does more text help? One student on each source of new texts alone, on all, and on all without filters; several seeds.

    python benchmarks/studies/augmentation.py RECIPE [--set KEY=VALUE ...] [--student NAME] [--variants "labelled;rule"] [--seeds 3] [--threads 1]

RECIPE has an [augment] table. The teacher, the generator, the texts and the teacher's answers are made once; a variant takes
its part of them. `labels alone` is the student by its labels, on the labelled texts; with `more steps` a student sees these for as many
steps as `all` takes: what longer training gives by itself.
Each training is a line of runs/NAME/augmentation/runs.jsonl; a study that was cut off goes on after the last one. The table goes to
stdout. The validation split chooses checkpoints alone; what is told is the test split.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

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

from kdedge.augment.counts import read_source_counts
from kdedge.cli.console import ConsoleProgress
from kdedge.cli.main import main
from kdedge.distillation.pipeline import prepare_context
from kdedge.distillation.student_training import DistillContext
from kdedge.errors import UsageError
from kdedge.recipe import BiLstmConfig, FilterConfig, Recipe, TinyBertConfig, load_recipe
from kdedge.run.layout import RunDir
from kdedge.run.stage import StageContext, read_stage
from kdedge.run.threads import settle_threads

OPEN_NAME, LABELS, LONGER = "all, no filters", "labels alone", ", more steps"
OPEN = FilterConfig(
    near=1.0, held_out=1.0, shortest=1, longest=10**6, perplexity=(0.0, 1.0), balance=None
)
"""Gates that reject only what is equal to a text that is there, or to one that is held out."""


def variant(
    name: str, context: DistillContext, free: DistillContext, student: TinyBertConfig | BiLstmConfig
) -> Variant:
    """The student and the texts of a variant; free: the context whose filters are open."""
    if name.startswith("all"):
        return Variant(name, free if name == OPEN_NAME else context, student)
    part = context.transfer.take(context.transfer.texts.rows("labelled", name))
    if name.endswith(LONGER):
        times = len(context.transfer) / len(part)
        fits = {key: fit for key in ("fit", "layers_first") if (fit := getattr(student, key, None))}
        student = student.model_copy(
            update={
                key: fit.model_copy(update={"epochs": fit.epochs * times})
                for key, fit in fits.items()
            }
        )
    if name.startswith(LABELS):
        return baseline(name, context, student)
    return Variant(name, replace(context, transfer=part), student)


def ungated(recipe: Recipe, runs: Path, progress: ConsoleProgress) -> DistillContext:
    """The same context with the filters open, in a run of its own that takes teacher and generator over."""
    assert recipe.augment is not None
    run = RunDir(runs / recipe.name, recipe)
    name = f"{(recipe.share or recipe.name)[:70]}-ungated"
    for stage in ("teacher", "generator"):
        if (run.shared / stage).exists() and not (runs / name / stage).exists():
            shutil.copytree(run.shared / stage, runs / name / stage)
    opened = recipe.model_copy(
        update={"share": name, "augment": recipe.augment.model_copy(update={"filters": OPEN})}
    )
    return prepare_context(
        opened, RunDir(runs / recipe.name, opened), stages=StageContext(progress=progress)
    )


def sources_table(run: RunDir) -> str:
    """Markdown: what each source made and what the filters rejected."""
    lines = ["| source | target | produced | used | rejected |", "| --- | --: | --: | --: | --- |"]
    for origin, counts in read_source_counts(run.augment).items():
        rejected = ", ".join(f"{reason} {count:,}" for reason, count in counts["rejected"].items())
        lines.append(
            f"| {origin} | {counts['target']:,} | {counts['produced']:,} | {counts['used']:,} | {rejected or '–'} |"
        )
    late = read_stage(run.transfer)["result"]["rejected"]
    told = ", ".join(f"{reason} {count:,}" for reason, count in late.items() if count) or "nothing"
    return "\n".join(lines) + f"\n\nAfter the teacher had labelled them: {told} rejected."


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE")
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs"))
@click.option("--seeds", type=click.IntRange(min=1), default=3)
@click.option(
    "--variants",
    help="labelled, sources, all; all, no filters; labels alone; labelled or labels alone, more steps: separated by semicolons. The first is what the others are held against.",
)
@click.option("--student", "students", multiple=True)
@click.option("--threads", type=click.IntRange(min=1))
def study(
    recipe: Path,
    overrides: tuple[str, ...],
    runs: Path,
    seeds: int,
    variants: str | None,
    students: tuple[str, ...],
    threads: int | None,
) -> None:
    """Train, score, and print the tables."""
    settled, progress = (
        settle_threads(load_recipe(recipe, overrides), runs, threads),
        ConsoleProgress(),
    )
    named = {Recipe.student_name(student): student for student in settled.student}
    if set(students) - set(named):
        raise UsageError(
            "the recipe has no such student",
            ", ".join(set(students) - set(named)),
            f"one of {', '.join(named)}",
        )
    run = RunDir.create(settled, runs)
    with run.locked():
        context = prepare_context(settled, run, stages=StageContext(progress=progress))
        known = [
            *dict.fromkeys(("labelled", *context.transfer.texts.origins)),
            "all",
            OPEN_NAME,
            f"labelled{LONGER}",
            LABELS,
            LABELS + LONGER,
        ]
        wanted = [name.strip() for name in variants.split(";")] if variants else known
        if set(wanted) - set(known):
            raise UsageError(
                "there are no such variants",
                "; ".join(set(wanted) - set(known)),
                f"some of {'; '.join(known)}",
            )
        free = ungated(settled, runs, progress) if OPEN_NAME in wanted else context
        ledger, teacher = ResultLog(run.folder / "augmentation"), read_stage(run.teacher)["result"]
        print(
            f"# {settled.name}: what more text gives\n\nTeacher: {teacher['metric']} {teacher['test']:.4f} on {len(context.task.test):,} texts; {seeds} seeds.\n"
        )
        for name in students or named:
            found = [variant(one, context, free, named[name]) for one in wanted]
            made = train_all(
                found, [settled.training_seed + number for number in range(seeds)], ledger, progress
            )
            scores = Scores(context.task, ledger)
            lines = [
                TableRow(
                    [one.name, f"{len(one.context.transfer):,}"],
                    rows,
                    None if rows is made[0] else scores.against(rows, made[0]),
                )
                for one, rows in zip(found, made, strict=True)
            ]
            print(
                table(
                    [f"{name} on", "texts"],
                    context.task.spec.metric,
                    f"gain over {found[0].name}",
                    lines,
                    teacher["test"],
                )
                + "\n"
            )
    print(sources_table(run))


if __name__ == "__main__":
    main(study)
