"""Does more text help? Train one student on each source of new texts, on all, and unfiltered.

    python benchmarks/studies/augmentation.py RECIPE [--set KEY=VALUE ...] [--student NAME]
        [--variants "labelled;rule"] [--seeds 3] [--threads 1]

RECIPE has an [augment] table. The teacher, the generator, the texts and the teacher's logits are
computed once; a variant uses its part of them. `labels alone` is the label-only baseline. With
`more steps` a student takes as many steps on its texts as `all` takes, which shows the effect of
longer training alone.

Each training is a line of runs/NAME/augmentation/runs.jsonl. An interrupted study resumes after
the last line. The tables go to stdout; `kdedge augment RECIPE` prints what became of the texts of
each source. The validation split only chooses checkpoints; the scores are on the test split.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace

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
from kdedge.distillation.pipeline import prepare_context
from kdedge.distillation.student_training import DistillContext
from kdedge.errors import UsageError
from kdedge.recipe import FilterConfig, StudentConfig
from kdedge.run.layout import RunDir
from kdedge.run.stage import StageContext

UNFILTERED = "all, no filters"
LABELS_ALONE = "labels alone"
MORE_STEPS = ", more steps"

OPEN_FILTERS = FilterConfig(
    near=1.0, held_out=1.0, shortest=1, longest=10**6, perplexity=(0.0, 1.0), balance=1e6
)
"""Filters that only reject copies of texts of the transfer set or of the other splits."""


@dataclass(frozen=True)
class Contexts:
    """The study's texts, with the recipe's filters and with open filters."""

    filtered: DistillContext
    unfiltered: DistillContext

    def variant(self, name: str, student: StudentConfig) -> TrainingVariant:
        """Build the variant of that name."""
        context = self.filtered
        if name == UNFILTERED:
            return TrainingVariant(name, self.unfiltered, student)
        if name == "all":
            return TrainingVariant(name, context, student)
        source = name.removesuffix(MORE_STEPS)
        if source == LABELS_ALONE:
            source = "labelled"
        part = context.transfer.take(context.transfer.texts.rows("labelled", source))
        if name.endswith(MORE_STEPS):
            student = train_longer(student, len(context.transfer) / len(part))
        if name.startswith(LABELS_ALONE):
            return baseline(name, context, student)
        return TrainingVariant(name, replace(context, transfer=part), student)


def train_longer(student: StudentConfig, factor: float) -> StudentConfig:
    """Multiply the epochs of every stage."""
    changes = {}
    for key in ("fit", "layers_first"):
        fit = getattr(student, key, None)
        if fit:
            changes[key] = fit.model_copy(update={"epochs": fit.epochs * factor})
    return student.model_copy(update=changes)


def unfiltered_context(arguments: StudyArguments) -> DistillContext:
    """Build the same context with open filters; its run takes over teacher and generator."""
    recipe, runs = arguments.recipe, arguments.runs
    assert recipe.augment is not None
    run = RunDir(runs / recipe.name, recipe)
    name = f"{(recipe.share or recipe.name)[:70]}-unfiltered"
    for stage in ("teacher", "generator"):
        if (run.shared / stage).exists() and not (runs / name / stage).exists():
            shutil.copytree(run.shared / stage, runs / name / stage)
    augment = recipe.augment.model_copy(update={"filters": OPEN_FILTERS})
    unfiltered = recipe.model_copy(update={"share": name, "augment": augment})
    unfiltered_run = RunDir(runs / recipe.name, unfiltered)
    return prepare_context(
        unfiltered, unfiltered_run, stages=StageContext(progress=arguments.progress)
    )


def variant_names(context: DistillContext, requested: str | None) -> list[str]:
    """Return all names, or the requested ones."""
    sources = dict.fromkeys(("labelled", *context.transfer.texts.origins))
    known = [*sources, "all", UNFILTERED, f"labelled{MORE_STEPS}", LABELS_ALONE]
    known.append(LABELS_ALONE + MORE_STEPS)
    if not requested:
        return known
    names = [name.strip() for name in requested.split(";")]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UsageError(
            "there are no such variants", "; ".join(unknown), f"some of {'; '.join(known)}"
        )
    return names


@study_command
@click.option(
    "--variants",
    help="Names separated by semicolons: labelled, a source, all; all, no filters; labels alone;"
    " labelled or labels alone, more steps. The first is the reference.",
)
@click.option("--student", "students", multiple=True)
def study(arguments: StudyArguments, variants: str | None, students: tuple[str, ...]) -> None:
    """Train, score, and print the tables."""
    named = {name: arguments.student(name) for name in students or arguments.students()}
    with arguments.prepared() as (run, context, teacher):
        names = variant_names(context, variants)
        unfiltered = unfiltered_context(arguments) if UNFILTERED in names else context
        contexts = Contexts(context, unfiltered)
        print(f"# {arguments.recipe.name}: the effect of more text\n")
        print(
            f"Teacher: {teacher.metric} {teacher.test:.4f} on {len(context.task.test):,}"
            f" texts; {len(arguments.seeds)} seeds.\n"
        )
        for name, student in named.items():
            trained = [contexts.variant(variant, student) for variant in names]
            print(student_table(arguments, run, name, trained, teacher.test) + "\n")


def student_table(
    arguments: StudyArguments,
    run: RunDir,
    name: str,
    variants: list[TrainingVariant],
    teacher: float,
) -> str:
    """Train the variants of one student and compare them with the first."""
    log = ResultLog(run.folder / "augmentation")
    results = train_all(variants, arguments.seeds, log, arguments.progress)
    task = variants[0].context.task
    scores = Scores(task, log)
    lines = lines_against_first(variants, results, scores)
    gain = f"gain over {variants[0].name}"
    return table([f"{name} on", "texts"], task.spec.metric, gain, lines, teacher)


if __name__ == "__main__":
    main(study)
