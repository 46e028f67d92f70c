"""Build the transfer set of a run: augment the texts, label them, choose how many to use."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kdedge.augment.counts import round_folder
from kdedge.augment.make import AugmentRound, largest_size, make_texts
from kdedge.augment.sources import build_sources
from kdedge.augment.teacher_filters import (
    check_teacher_filters,
    teacher_filter,
    teacher_filter_settings,
)
from kdedge.distillation.learning_curve import LearningCurve, difficulty, fit_learning_curve, subset
from kdedge.distillation.student_training import (
    DistillContext,
    TrainingStep,
    load_trained_student,
    stage_inputs,
    train_student,
)
from kdedge.errors import UsageError
from kdedge.nn.text_model import TextClassifier
from kdedge.recipe import Recipe
from kdedge.run.layout import RoundDir
from kdedge.run.stage import stage
from kdedge.teacher.ensemble import teacher_hash
from kdedge.transfer.dataset import TransferBuilder, TransferSet
from kdedge.transfer.texts import TransferTexts, collect_texts, joined


def augment_texts(context: DistillContext) -> TransferTexts:
    """Make the texts of all rounds: stages `generator/`, `augment/`, `augment-2/`, ...

    Rounds after the first start from the texts on which student and teacher differ most.
    """
    recipe, run, augment = context.recipe, context.run, context.recipe.augment
    assert augment is not None
    check_teacher_filters(augment.filters, context.task.spec)
    sources = build_sources(
        recipe,
        context.task,
        context.teacher,
        teacher_hash(run),
        run.generator,
        stages=context.stages,
    )
    texts, weights = None, None
    for number in range(1, augment.rounds + 1):
        augment_round = AugmentRound(
            size=largest_size(augment) / augment.rounds,
            seed=recipe.seed + 1000 * (number - 1),
            number=number,
            earlier=texts,
            weights=weights,
        )
        folder = round_folder(run.shared, number)
        new = make_texts(sources, folder, augment_round, stages=context.stages)
        texts = new if texts is None else joined(texts, new)
        if number < augment.rounds:
            weights = _text_weights(context, texts, run.augment_round(number))
    assert texts is not None
    return texts


def _text_weights(context: DistillContext, texts: TransferTexts, folders: RoundDir) -> np.ndarray:
    """(N,) weights of the training texts, by the difficulty for a student of the texts so far.

    A run that shares the texts of another run reads that run's student, whatever its own
    students are.
    """
    transfer = label_texts(context, texts, folders.transfer)
    if context.recipe.share and folders.student.exists():
        student = load_trained_student(folders.student)
    else:
        student = _train_on(context, transfer, folders.student)
    train = context.task.train
    teacher_logits = transfer.logits[transfer.texts.labelled].astype(np.float32)
    progress = context.stages.progress
    student_logits = student.predict_logits(train.texts, train.pairs, progress=progress)
    return difficulty(student_logits, teacher_logits, context.task.spec.kind)


def label_texts(
    context: DistillContext, new_texts: TransferTexts | None, folder: Path
) -> TransferSet:
    """Label the training texts and `new_texts` with the teacher, as the stage `transfer/`.

    Logits that the transfer sets of this run already hold are not computed again.
    """
    recipe, run, augment = context.recipe, context.run, context.recipe.augment
    builder = TransferBuilder(
        recipe.transfer,
        context.teacher,
        teacher_hash(run),
        older_sets=run.transfer_sets,
    )
    if augment:
        precision = recipe.transfer.precision
        builder = replace(
            builder,
            teacher_filter=teacher_filter(
                augment.filters, context.task, context.teacher.max_length, precision
            ),
            filter_settings=teacher_filter_settings(augment.filters),
        )
    texts = collect_texts(context.task, new_texts)
    return builder.build(texts, folder, stages=context.stages)


def reject_auto_size(recipe: Recipe) -> None:
    """Raise UsageError if the size is `auto`, which only `kdedge distill` resolves."""
    if recipe.augment and recipe.augment.size == "auto":
        raise UsageError(
            "students are compared on the same texts, so the number of texts must be fixed",
            'augment.size = "auto"',
            "run kdedge distill, which prints the size that auto chooses, and set augment.size",
        )


def choose_size(context: DistillContext) -> DistillContext:
    """Return the context with the part of the transfer set that the learning curve chooses."""
    chosen = measure_learning_curve(context).chosen
    context.stages.progress.say(
        f"augment: auto uses {chosen.size:.3g} new texts per training text, "
        f"from {', '.join(chosen.sources) or 'no source'}"
    )
    part = f"{chosen.size:.3g} of {'+'.join(chosen.sources)}"
    return replace(
        context,
        transfer=subset(context.transfer, chosen.size, chosen.sources),
        transfer_key=f"{context.transfer_key}, {part}",
    )


def measure_learning_curve(context: DistillContext) -> LearningCurve:
    """Measure the first student after each size and source, as the stage `curve/`."""
    augment = context.recipe.augment
    assert augment is not None
    student = context.recipe.student[0]
    inputs = {
        "curve": augment.curve,
        "seeds": augment.seeds,
        **stage_inputs(context, student, student.objective),
    }

    def train_and_predict(transfer: TransferSet, number: int, folder: Path) -> np.ndarray:
        changes = {"student_seed": context.seed + number}
        seeded = replace(context, recipe=context.recipe.model_copy(update=changes))
        trained = _train_on(seeded, transfer, folder)
        return trained.predict_logits(context.task.validation.texts, context.task.validation.pairs)

    def make(part: Path) -> dict[str, Any]:
        curve = fit_learning_curve(augment, context.transfer, context.task, train_and_predict, part)
        return curve.to_json()

    result = stage(context.run.curve, inputs, make, stages=context.stages)
    return LearningCurve.from_json(result)


def _train_on(context: DistillContext, transfer: TransferSet, folder: Path) -> TextClassifier:
    """Train the run's first student on other texts, as a stage in `folder`."""
    student = context.recipe.student[0]
    context = replace(context, transfer=transfer, transfer_key=transfer.content_hash())
    train_student(context, student, TrainingStep(folder, student.objective, student.fit))
    return load_trained_student(folder)
