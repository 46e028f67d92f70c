"""Does more text help? One student on each source of new texts alone, on all, and on all without gates; several seeds.

    python benchmarks/studies/augmentation.py RECIPE [--set KEY=VALUE ...] [--student NAME] [--variants "gold;rule"] [--seeds 3] [--threads 1]

RECIPE has an [augment] table. The teacher, the generator, the texts and the teacher's answers are made once; a variant takes
its part of them. `labels alone` is the student by its labels, on the gold texts; with `more steps` a student sees these for as many
steps as `all` takes: what longer training gives by itself.
Each training is a line of runs/NAME/augmentation/runs.jsonl; a study that was cut off goes on after the last one. The table goes to
stdout. The select split chooses checkpoints alone; what is told is the reported split.
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
    table,
    train_all,
    undistilled,
)

from kdedge.augment.sources import transfer_texts_of
from kdedge.cli.console import ConsoleProgress
from kdedge.cli.main import main
from kdedge.distillation.pipeline import prepare_context
from kdedge.distillation.student_training import DistillContext
from kdedge.errors import UsageError
from kdedge.recipe import BiLstmConfig, FilterConfig, Recipe, TinyBertConfig, load_recipe
from kdedge.run.layout import RunDir
from kdedge.run.stage import read_stage
from kdedge.run.threads import settle_threads

OPEN_NAME, LABELS, LONGER = "all, no gates", "labels alone", ", more steps"
OPEN = FilterConfig(
    near=1.0, held_out=1.0, shortest=1, longest=10**6, perplexity=(0.0, 1.0), balance=None
)
"""Gates that refuse only what is equal to a text that is there, or to one that is held out."""


def variant(
    name: str, lesson: DistillContext, free: DistillContext, student: TinyBertConfig | BiLstmConfig
) -> Variant:
    """The student and the texts of a variant; free: the lesson whose gates are open."""
    if name.startswith("all"):
        return Variant(name, free if name == OPEN_NAME else lesson, student)
    part = lesson.transfer.take(lesson.transfer.texts.rows("gold", name))
    if name.endswith(LONGER):
        times = len(lesson.transfer) / len(part)
        fits = {key: fit for key in ("fit", "layers_first") if (fit := getattr(student, key, None))}
        student = student.model_copy(
            update={
                key: fit.model_copy(update={"epochs": fit.epochs * times})
                for key, fit in fits.items()
            }
        )
    if name.startswith(LABELS):
        return undistilled(name, lesson, student)
    return Variant(name, replace(lesson, transfer=part), student)


def ungated(recipe: Recipe, runs: Path, progress: ConsoleProgress) -> DistillContext:
    """The same lesson with the gates open, in a run of its own that takes teacher and generator over."""
    assert recipe.augment is not None
    run = RunDir(runs / recipe.name, recipe)
    name = f"{(recipe.share or recipe.name)[:70]}-ungated"
    for stage in ("teacher", "generator"):
        if (run.shared / stage).exists() and not (runs / name / stage).exists():
            shutil.copytree(run.shared / stage, runs / name / stage)
    opened = recipe.model_copy(
        update={"share": name, "augment": recipe.augment.model_copy(update={"gates": OPEN})}
    )
    return prepare_context(opened, RunDir(runs / recipe.name, opened), progress=progress)


def sources_table(run: RunDir) -> str:
    """Markdown: what each source made and what the gates refused."""
    lines = ["| source | wanted | made | kept | refused |", "| --- | --: | --: | --: | --- |"]
    for origin, counts in transfer_texts_of(run.augment).items():
        refused = ", ".join(f"{reason} {count:,}" for reason, count in counts["refused"].items())
        lines.append(
            f"| {origin} | {counts['wanted']:,} | {counts['made']:,} | {counts['kept']:,} | {refused or '–'} |"
        )
    late = read_stage(run.transfer)["result"]["refused"]
    told = ", ".join(f"{reason} {count:,}" for reason, count in late.items() if count) or "nothing"
    return "\n".join(lines) + f"\n\nAfter the teacher had labelled them: {told} refused."


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE")
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs"))
@click.option("--seeds", type=click.IntRange(min=1), default=3)
@click.option(
    "--variants",
    help="gold, sources, all; all, no gates; labels alone; gold or labels alone, more steps: separated by semicolons. The first is what the others are held against.",
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
        lesson = prepare_context(settled, run, progress=progress)
        known = [
            *dict.fromkeys(("gold", *lesson.transfer.texts.origins)),
            "all",
            OPEN_NAME,
            f"gold{LONGER}",
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
        free = ungated(settled, runs, progress) if OPEN_NAME in wanted else lesson
        ledger, teacher = ResultLog(run.folder / "augmentation"), read_stage(run.teacher)["result"]
        print(
            f"# {settled.name}: what more text gives\n\nTeacher: {teacher['metric']} {teacher['report']:.4f} on {len(lesson.task.report):,} texts; {seeds} seeds.\n"
        )
        for name in students or named:
            found = [variant(one, lesson, free, named[name]) for one in wanted]
            made = train_all(
                found, [settled.training_seed + number for number in range(seeds)], ledger, progress
            )
            scores = Scores(lesson.task, ledger)
            lines = [
                TableRow(
                    [one.name, f"{len(one.lesson.transfer):,}"],
                    rows,
                    None if rows is made[0] else scores.against(rows, made[0]),
                )
                for one, rows in zip(found, made, strict=True)
            ]
            print(
                table(
                    [f"{name} on", "texts"],
                    lesson.task.spec.metric,
                    f"gain over {found[0].name}",
                    lines,
                    teacher["report"],
                )
                + "\n"
            )
    print(sources_table(run))


if __name__ == "__main__":
    main(study)
