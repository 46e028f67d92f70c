"""Does more text help? One student on each source of new texts alone, on all, and on all without gates; several seeds.

    python benchmarks/studies/augmentation.py RECIPE [--set KEY=VALUE ...] [--seeds 3] [--variants gold,rule,...] [--student NAME]

RECIPE has an [augment] table. The teacher, the generator, the texts and the teacher's answers are made once; a variant takes
its part of them. `gold, more steps` sees the gold texts alone for as many steps as `all`: what longer training gives by itself.
Each training is a line of runs/NAME/augmentation.jsonl; a study that was cut off goes on after the last one. The table goes to
stdout. The select split chooses checkpoints alone; what is told is the reported split.
"""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import click
import numpy as np

from kdedge.augment.sources import made_from
from kdedge.cli import main
from kdedge.console import ConsoleProgress
from kdedge.distill.command import prepared
from kdedge.distill.story import prepare_lesson
from kdedge.distill.teaching import Lesson, Teaching
from kdedge.recipe import Gates, Recipe, load_recipe
from kdedge.rundir import Run, read_stage
from kdedge.transfer import TransferSet

VARIANTS = ("gold", "rule", "replace", "generate", "all", "all, no gates", "gold, more steps")
OPEN = Gates(near=1.0, held_out=1.0, shortest=1, longest=10**6, perplexity=1.0, balance=None)
"""Gates that refuse only what is equal to a text that is there, or to one that is held out."""


def part_of(variant: str, whole: TransferSet) -> TransferSet:
    """The texts that a variant learns from."""
    origins = np.array(whole.texts.origins)
    if variant.startswith("all"):
        return whole
    wanted = (origins == "gold") | (origins == variant)
    return whole.take(np.flatnonzero(wanted))


def ungated(recipe: Recipe, runs: Path, progress: ConsoleProgress) -> Lesson:
    """The same lesson with the gates open, in a run of its own that takes teacher and generator over."""
    assert recipe.augment is not None
    run = Run(runs / recipe.name, recipe)
    name = f"{(recipe.share or recipe.name)[:70]}-ungated"
    for stage in ("teacher", "generator"):
        if (run.shared / stage).exists() and not (runs / name / stage).exists():
            shutil.copytree(run.shared / stage, runs / name / stage)
    opened = recipe.model_copy(update={"share": name, "augment": recipe.augment.model_copy(update={"gates": OPEN})})
    return prepare_lesson(opened, Run(runs / recipe.name, opened), progress=progress)


def trained(lesson: Lesson, name: str, variant: str, seed: int, whole: int, progress: ConsoleProgress) -> dict[str, object]:
    """One student of a variant; `whole` is how many texts `all` has."""
    student = next(s for s in lesson.recipe.student if Recipe.student_name(s) == name)
    transfer = part_of("gold" if variant == "gold, more steps" else variant, lesson.transfer)
    if variant == "gold, more steps":
        student = student.model_copy(update={"fit": student.fit.model_copy(update={"epochs": student.fit.epochs * whole / len(transfer)})})
    mine = replace(lesson, transfer=transfer, recipe=lesson.recipe.model_copy(update={"student_seed": seed}))
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        result = Teaching(mine, student, student.objective, student.fit, None, f"{name}, {variant}, seed {seed}", progress)(Path(folder))
    row = {"student": name, "variant": variant, "seed": seed, "texts": len(transfer), "seconds": round(time.monotonic() - start)}
    return row | {key: result[key] for key in ("metric", "select", "report")}


def spread(values: list[float]) -> str:
    """Mean and standard deviation, where there are two values or more."""
    return f"{statistics.mean(values):.4f}" + (f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else "")


def table(rows: list[dict[str, object]], teacher: float) -> str:
    """Markdown: per student and variant, mean ± standard deviation over seeds, share of the teacher, and gain over gold at equal seeds."""
    lines = [
        "| student | texts from | texts | seeds | score | of the teacher | gain over gold | seconds |",
        "| --- | --- | --: | --: | --: | --: | --: | --: |",
    ]
    for student in dict.fromkeys(str(row["student"]) for row in rows):
        gold = {row["seed"]: float(str(row["report"])) for row in rows if row["student"] == student and row["variant"] == "gold"}
        for variant in dict.fromkeys(row["variant"] for row in rows if row["student"] == student):
            some = [row for row in rows if row["student"] == student and row["variant"] == variant]
            scores = [float(str(row["report"])) for row in some]
            gains = [float(str(row["report"])) - gold[row["seed"]] for row in some if row["seed"] in gold]
            cells = [student, variant, f"{some[0]['texts']:,}", len(some), spread(scores), f"{100 * statistics.mean(scores) / teacher:.1f} %"]
            cells += ["–" if variant == "gold" or not gains else spread(gains), round(statistics.mean([float(str(row["seconds"])) for row in some]))]
            lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def sources_table(run: Run) -> str:
    """Markdown: what each source made and what the gates refused."""
    lines = ["| source | wanted | made | kept | refused |", "| --- | --: | --: | --: | --- |"]
    for origin, counts in made_from(run.augment).items():
        refused = ", ".join(f"{reason} {count:,}" for reason, count in counts["refused"].items())
        lines.append(f"| {origin} | {counts['wanted']:,} | {counts['made']:,} | {counts['kept']:,} | {refused or '–'} |")
    late = read_stage(run.transfer)["result"]["refused"]
    told = ", ".join(f"{reason} {count:,}" for reason, count in late.items() if count) or "nothing"
    return "\n".join(lines) + f"\n\nAfter the teacher had labelled them: {told} refused."


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--set", "overrides", multiple=True)
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs"))
@click.option("--seeds", type=click.IntRange(min=1), default=3)
@click.option("--variants", default=";".join(VARIANTS), help="Separated by semicolons.")
@click.option("--student", "students", multiple=True)
@click.option("--threads", type=click.IntRange(min=1))
def study(recipe: Path, overrides: tuple[str, ...], runs: Path, seeds: int, variants: str, students: tuple[str, ...], threads: int | None) -> None:
    """Train, score, and print the tables."""
    settled, progress = prepared(load_recipe(recipe, overrides), runs, threads), ConsoleProgress()
    run = Run.create(settled, runs)
    with run.locked():
        lesson = prepare_lesson(settled, run, progress=progress)
        names = students or tuple(Recipe.student_name(s) for s in settled.student)
        wanted = [(name, variant.strip(), seed) for name in names for seed in range(seeds) for variant in variants.split(";")]
        log = run.folder / "augmentation.jsonl"
        rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        done = {(row["student"], row["variant"], row["seed"]) for row in rows}
        free = ungated(settled, runs, progress) if any(variant == "all, no gates" for _, variant, _ in wanted) else lesson
        for name, variant, seed in wanted:
            if (name, variant, seed) not in done:
                taken = free if variant == "all, no gates" else lesson
                rows.append(trained(taken, name, variant, seed, len(lesson.transfer), progress))
                with log.open("a") as stream:
                    stream.write(json.dumps(rows[-1]) + "\n")
    teacher = read_stage(run.teacher)["result"]
    print(f"# {settled.name}: what more text gives\n\nTeacher: {teacher['metric']} {teacher['report']:.4f} on {len(lesson.task.report):,} texts.\n")
    asked = [row for row in rows if (row["student"], row["variant"], row["seed"]) in set(wanted)]
    print(table(asked, teacher["report"]) + "\n\n" + sources_table(run))


if __name__ == "__main__":
    main(study)
