"""Learning to augment: do texts that the student gets wrong teach more than random ones?

    python benchmarks/studies/learn_to_augment.py RECIPE [--set KEY=VALUE ...] [--student NAME]
        [--rounds 3] [--candidates 16384] [--confidence 0.9] [--seeds 3] [--threads 1]

RECIPE has [augment.generate]; `augment.size` is the number of new texts per labelled text. A round
generates candidates and keeps those on which a confident teacher and a probe student differ most.
The first round is prompted with training texts, the others with the texts kept so far, balanced
over label and length. After each round a new probe student learns from all kept texts.

All variants have equally many new texts, and all students take as many steps (to within one batch
per epoch):

- random: of all candidates that are prompted with training texts, the reference
- confident: only those of them on which the teacher is confident
- divergent, once: those of them on which the first probe student differs most from the teacher
- divergent, N rounds: as described above; as many candidates are generated in all
- labelled, more steps: no new texts

All candidates pass the recipe's text filters. Selection reads no validation or test label. The
teacher's confidence is its highest probability, not calibrated; the study prints how often a
teacher with such a confidence is right on the validation split.

Each step is a stage in runs/NAME/learn-to-augment/, and each training of the table a line of
runs.jsonl there. An interrupted study resumes. Counts and the table go to stdout.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
from kdedge.benchmarks.studies._candidates import CandidateMaker, together
from kdedge.benchmarks.studies._divergence import confidence as confidence_of
from kdedge.benchmarks.studies._divergence import reject_multilabel
from kdedge.benchmarks.studies._experiments import (
    ResultLog,
    Scores,
    StudyArguments,
    TrainingVariant,
    study_command,
    train_all,
)
from kdedge.benchmarks.studies._learning_rounds import LearningRounds, RoundSettings
from kdedge.benchmarks.studies._variant_tables import lines_against_first, table
from kdedge.benchmarks.studies.augmentation import train_longer

from kdedge.cli.main import main
from kdedge.data.task import Task
from kdedge.distillation.student_training import DistillContext
from kdedge.errors import UsageError
from kdedge.nn.text_model import read_validation_logits
from kdedge.recipe import Recipe, StudentConfig
from kdedge.recipe.checks import reject_auto_size
from kdedge.transfer.dataset import TransferSet


def new_texts(recipe: Recipe, labelled: int) -> int:
    """Return the number of new texts of each variant.

    Raises:
        UsageError: If it is 0, or if the recipe has no [augment] table.
    """
    augment = recipe.augment_in_use
    count = round(augment.size_to_make(labelled) * labelled) if augment else 0
    if not count:
        raise UsageError(
            "this study compares new texts",
            "the recipe asks for none",
            "set augment.size and [augment.generate]",
        )
    return count


def chosen_texts(learning: LearningRounds) -> dict[str, TransferSet]:
    """Make the new texts of every variant, and print how they were chosen."""
    settings = learning.settings
    pool = together([candidates.transfer for candidates in learning.random])
    confidence = confidence_of(learning.context.task.spec, pool.logits)
    confident = np.flatnonzero(confidence >= settings.confidence)
    # Candidates of one shard are in the order of the lengths of their prompts.
    rng = np.random.default_rng(learning.context.recipe.seed)
    once = learning.select_once()
    rounds = learning.learn()
    print(f"- all random candidates: {once.summary()}")
    for number, kept in enumerate(rounds, 1):
        print(f"- round {number}: {kept.summary()}")
    chosen = {
        "random": pool.take(rng.permutation(len(pool))[: settings.texts]),
        "confident": pool.take(rng.permutation(confident)[: settings.texts]),
        "divergent, once": once.transfer,
        f"divergent, {settings.rounds} rounds": together([kept.transfer for kept in rounds]),
    }
    for name, texts in {"labelled": learning.context.transfer, **chosen}.items():
        print(f"- {name}: {learning.attributes(texts).summary()}")
    return chosen


def variants(
    context: DistillContext, student: StudentConfig, chosen: Mapping[str, TransferSet], texts: int
) -> list[TrainingVariant]:
    """List a student for each set of new texts, and one without, at equally many steps."""
    labelled = context.transfer
    listed = []
    for name, new in chosen.items():
        with_new = replace(context, transfer=together([labelled, new]))
        listed.append(TrainingVariant(name, with_new, student))
    longer = train_longer(student, (len(labelled) + texts) / len(labelled))
    listed.append(TrainingVariant("labelled, more steps", context, longer))
    return listed


def confidence_line(folder: Path, task: Task, lowest: float) -> str:
    """Return how often a confident teacher is right on the validation split."""
    logits = read_validation_logits(folder, task)
    rows = np.flatnonzero(confidence_of(task.spec, logits) >= lowest)
    right = logits[rows].argmax(1) == task.validation.labels[rows]
    share = len(rows) / len(logits)
    accuracy = right.sum() / max(1, len(rows))
    return (
        f"- The teacher's probability is at least {lowest:g} on {share:.1%} of the validation"
        f" texts; it is right on {accuracy:.1%} of these."
    )


@study_command
@click.option("--rounds", type=click.IntRange(min=2), default=3)
@click.option(
    "--candidates", type=click.IntRange(min=1), default=16384, help="Prompts of each round."
)
@click.option(
    "--confidence",
    type=click.FloatRange(0, 1),
    default=0.9,
    help="Lowest probability of the teacher's label.",
)
@click.option("--student", "name", help="Default: the recipe's first.")
def study(
    arguments: StudyArguments, rounds: int, candidates: int, confidence: float, name: str | None
) -> None:
    """Generate, select, train, and print the table."""
    recipe = arguments.recipe
    student = arguments.student(name)
    reject_auto_size(recipe)
    reject_multilabel(recipe)
    # The study makes its own new texts: the run's transfer set holds the labelled ones.
    labelled_only = recipe.model_copy(update={"augment": None})
    with replace(arguments, recipe=labelled_only).prepared() as (run, context, teacher):
        spec = context.task.spec
        settings = RoundSettings(new_texts(recipe, len(context.task.train)), rounds, confidence)
        folder = run.folder / "learn-to-augment"
        maker = CandidateMaker.prepare(recipe, context, folder, candidates)
        print(f"# {recipe.name}: learning to augment\n")
        print(
            f"Teacher: {teacher.metric} {teacher.test:.4f} on {len(context.task.test):,} texts;"
            f" {settings.texts:,} new texts; {len(arguments.seeds)} seeds.\n"
        )
        if spec.kind == "classification":
            print(confidence_line(run.teacher, context.task, confidence))
        learning = LearningRounds(context, student, maker, settings)
        chosen = chosen_texts(learning)
        listed = variants(context, student, chosen, settings.texts)
        log = ResultLog(folder)
        results = train_all(listed, arguments.seeds, log, arguments.progress)
    scores = Scores(context.task, log)
    lines = lines_against_first(listed, results, scores)
    print()
    print(table(["new texts", "texts"], spec.metric, "gain over random", lines, teacher.test))


if __name__ == "__main__":
    main(study)
