"""Build the transfer set of a run: augment the texts, label them, choose how many to use."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from kdedge.augment.make import make_texts
from kdedge.augment.sources import build_sources
from kdedge.augment.teacher_filters import (
    check_teacher_filters,
    teacher_filter,
    teacher_filter_settings,
)
from kdedge.distillation.apart import FEW_APART, keep_apart
from kdedge.distillation.learning_curve import (
    LearningCurve,
    Predictions,
    fit_learning_curve,
    subset,
)
from kdedge.distillation.student_training import (
    DistillContext,
    TrainingStep,
    load_trained_student,
    stage_inputs,
    train_student,
)
from kdedge.errors import UsageError
from kdedge.recipe import StudentConfig
from kdedge.run.stage import stage
from kdedge.teacher.finetune import teacher_hash
from kdedge.transfer.dataset import TransferBuilder, TransferSet
from kdedge.transfer.texts import TransferTexts, collect_texts


def augment_texts(context: DistillContext) -> TransferTexts:
    """Run the stages `generator/` and `augment/`; return the new texts."""
    recipe, run, augment = context.recipe, context.run, context.recipe.augment_in_use
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
    size = augment.size_to_make(len(context.task.train))
    return make_texts(sources, run.augment, size=size, seed=recipe.seed, stages=context.stages)


def label_texts(context: DistillContext, new_texts: TransferTexts | None) -> TransferSet:
    """Label the training texts and `new_texts` with the teacher, as the stage `transfer/`."""
    recipe, run, augment = context.recipe, context.run, context.recipe.augment_in_use
    builder = TransferBuilder(recipe.transfer, context.teacher, teacher_hash(run))
    if augment:
        builder = replace(
            builder,
            teacher_filter=teacher_filter(augment.filters, context.task),
            filter_settings=teacher_filter_settings(augment.filters),
        )
    texts = collect_texts(context.task, new_texts)
    return builder.build(texts, run.transfer, stages=context.stages)


def choose_size(context: DistillContext) -> DistillContext:
    """Reduce the transfer set to the part that the learning curve chooses.

    The texts that the curve keeps apart are not used for training either.
    """
    augment = context.recipe.augment_in_use
    assert augment is not None
    chosen = measure_learning_curve(context).chosen
    context.stages.progress.say(
        f"augment: auto uses {chosen.size:.3g} new texts per training text, "
        f"from {', '.join(chosen.sources) or 'no source'}"
    )
    part = f"{chosen.size:.3g} of {'+'.join(chosen.sources)}, {augment.apart} apart"
    training = keep_apart(context.transfer, augment.apart).training
    return replace(
        context,
        transfer=subset(training, chosen.size, chosen.sources),
        transfer_key=f"{context.transfer_key}, {part}",
    )


def check_apart(context: DistillContext) -> None:
    """Raise UsageError if there is nothing to compare students on, and warn if there is little."""
    augment = context.recipe.augment_in_use
    assert augment is not None
    new = len(context.transfer) - len(context.transfer.texts.labelled)
    apart = len(keep_apart(context.transfer, augment.apart).apart)
    if not apart:
        raise UsageError(
            "there are too few new texts to compare students on",
            f"{new} new texts; at most a third of those of one source is kept apart for that",
            "add texts, or set augment.size to a number and give --force, which keeps the teacher",
        )
    if apart < FEW_APART:
        context.stages.progress.say(
            f"augment: warning: students are compared on {apart} new texts only, so that the "
            "choice may be chance; at most a third of a source is kept apart"
        )


def check_curve_student(student: StudentConfig) -> None:
    """Raise UsageError if a learning curve cannot train the student."""
    if student.first_stage:
        raise UsageError(
            "a learning curve trains each student in one stage",
            f"student {student.key} has layers_first",
            "remove layers_first, or set augment.size to a number",
        )


def measure_learning_curve(context: DistillContext) -> LearningCurve:
    """Run the stage `curve/`: train the first student with each size and source.

    Call `check_apart` first.

    Raises:
        UsageError: If the student is trained in two stages.
    """
    augment = context.recipe.augment_in_use
    assert augment is not None
    student = context.recipe.student[0]
    check_curve_student(student)
    inputs = {
        "curve": augment.curve,
        "seeds": augment.seeds,
        "apart": augment.apart,
        **stage_inputs(context, student, student.objective),
    }

    def train_and_predict(
        transfer: TransferSet, apart: TransferSet, number: int, folder: Path
    ) -> Predictions:
        changes = {"student_seed": context.seed + number}
        changed = replace(
            context,
            recipe=context.recipe.model_copy(update=changes),
            transfer=transfer,
            transfer_key=transfer.content_hash(),
        )
        train_student(changed, student, TrainingStep(folder, student.objective, student.fit))
        trained, validation = load_trained_student(folder), context.task.validation
        new = apart.texts.replace_mask_token(context.teacher.tokenizer, trained.tokenizer)
        return Predictions(
            trained.predict_logits(validation.texts, validation.pairs),
            trained.predict_logits(new.texts, new.pairs) if len(new) else apart.logits,
        )

    def make(part: Path) -> dict[str, Any]:
        curve = fit_learning_curve(augment, context.transfer, context.task, train_and_predict, part)
        return curve.to_json()

    result = stage(context.run.curve, inputs, make, stages=context.stages)
    return LearningCurve.from_json(result)
