"""The texts of one run: made where the recipe asks for more, labelled by the teacher, and as many as help."""

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
from kdedge.distillation.student_training import DistillContext, stage_inputs, train_student
from kdedge.errors import UsageError
from kdedge.nn.device import this_device
from kdedge.nn.text_model import TextClassifier
from kdedge.nn.tokenization import load_tokenizer
from kdedge.recipe import Recipe
from kdedge.run.stage import DEFAULT_STAGES, StageContext, read_stage, stage
from kdedge.students.build import load_student
from kdedge.teacher.ensemble import teacher_hash
from kdedge.transfer.dataset import TransferBuilder, TransferSet, transfer_hash
from kdedge.transfer.texts import TransferTexts, collect_texts, joined


def augment_texts(
    context: DistillContext, *, stages: StageContext = DEFAULT_STAGES
) -> TransferTexts:
    """The stages `generator/`, where texts are generated, and `augment/`; later rounds start from the texts that were learned worst."""
    recipe, run, augment = context.recipe, context.run, context.recipe.augment
    assert augment is not None
    check_teacher_filters(augment.filters, context.task.spec)
    sources = build_sources(
        recipe,
        context.task,
        context.teacher,
        teacher_hash(run),
        run.shared,
        stages=stages,
    )
    made, weights = None, None
    for number in range(1, augment.rounds + 1):
        augment_round = AugmentRound(
            size=largest_size(augment) / augment.rounds,
            seed=recipe.seed + 1000 * (number - 1),
            number=number,
            earlier=made,
            weights=weights,
        )
        new = make_texts(sources, round_folder(run.shared, number), augment_round, stages=stages)
        made = new if made is None else joined(made, new)
        if number < augment.rounds:
            weights = _worst_learned(context, made, run.shared / f"round-{number}", stages=stages)
    assert made is not None
    return made


def _worst_learned(
    context: DistillContext, made: TransferTexts, folder: Path, *, stages: StageContext
) -> np.ndarray:
    """(N,) how far the first student, after learning from the texts so far, is from the teacher on each training text.

    A run that shares its texts takes the student that chose them, whatever seed or settings its own students have.
    """
    transfer = label_texts(context, made, folder / "transfer", stages=stages)
    if context.recipe.share and (folder / "student").exists():
        model = _standing(folder / "student")
    else:
        model = train_and_predict(
            replace(context, transfer=transfer), folder / "student", stages=stages
        )
    train = context.task.train
    labelled = transfer.logits[transfer.texts.labelled].astype(np.float32)
    return difficulty(
        model.predict_logits(train.texts, train.pairs, progress=stages.progress),
        labelled,
        context.task.spec.kind,
    )


def label_texts(
    context: DistillContext,
    made: TransferTexts | None,
    folder: Path,
    *,
    stages: StageContext = DEFAULT_STAGES,
) -> TransferSet:
    """The stage `transfer/`: labelled and made texts with the teacher's answers; those of the run's own transfer set are not asked for again."""
    recipe, run, augment = context.recipe, context.run, context.recipe.augment
    older_sets = (run.transfer, *sorted(run.shared.glob("round-*/transfer")))
    builder = TransferBuilder(
        recipe.transfer, context.teacher, teacher_hash(run), older_sets=older_sets
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
    return builder.build(collect_texts(context.task, made), folder, stages=stages)


def reject_auto_size(recipe: Recipe) -> None:
    """Raises UsageError where the number of made texts is still to be found, which only `kdedge distill` does."""
    if recipe.augment and recipe.augment.size == "auto":
        what = "students are compared on the same texts, and auto is yet to find how many"
        raise UsageError(
            what,
            'augment.size = "auto"',
            "run kdedge distill, which tells what auto takes, and set augment.size to it",
        )


def choose_size(
    context: DistillContext, *, stages: StageContext = DEFAULT_STAGES
) -> DistillContext:
    """The context with as many made texts, and from those sources, as the first student gains from."""
    growth = measure_learning_curve(context, stages=stages)
    chosen = growth.chosen
    stages.progress.say(
        f"augment: auto takes {chosen.size:.3g} made texts per training text, from {', '.join(chosen.sources) or 'no source'}"
    )
    part = subset(context.transfer, chosen.size, chosen.sources)
    return replace(
        context, transfer=part, chosen=f"{chosen.size:.3g} of {'+'.join(chosen.sources)}"
    )


def measure_learning_curve(
    context: DistillContext, *, stages: StageContext = DEFAULT_STAGES
) -> LearningCurve:
    """The stage `curve/`: what the first student scores on the validation split after each size and source; every training is kept."""
    augment, folder = context.recipe.augment, context.run.folder / "curve"
    assert augment is not None
    first = context.recipe.student[0]
    seeds = {"seeds": augment.seeds} if augment.seeds > 1 else {}
    inputs = {
        "curve": augment.curve,
        "judged_by": "difference",
        **seeds,
        **stage_inputs(context, first, first.objective, transfer_hash(context.run.transfer)),
    }

    def ask(transfer: TransferSet, number: int, place: Path) -> np.ndarray:
        recipe = context.recipe.model_copy(
            update={"student_seed": context.recipe.training_seed + number}
        )
        model = train_and_predict(
            replace(context, transfer=transfer, recipe=recipe),
            place,
            stages=stages,
        )
        return model.predict_logits(context.task.validation.texts, context.task.validation.pairs)

    def make(part: Path) -> dict[str, Any]:
        return fit_learning_curve(augment, context.transfer, context.task, ask, part).document()

    return LearningCurve.of(stage(folder, inputs, make, stages=stages))


def _standing(folder: Path) -> TextClassifier:
    """The student of a finished stage."""
    return TextClassifier(
        load_student(folder).to(this_device()),
        load_tokenizer(folder),
        read_stage(folder)["result"]["max_length"],
    )


def train_and_predict(
    context: DistillContext, folder: Path, *, stages: StageContext = DEFAULT_STAGES
) -> TextClassifier:
    """The run's first student, trained on the context's transfer set in a folder of its own."""
    student = context.recipe.student[0]
    train_student(
        context,
        student,
        folder,
        student.objective,
        context.transfer.content_hash(),
        stages=stages,
    )
    return TextClassifier(
        load_student(folder).to(this_device()), load_tokenizer(folder), student.max_length
    )
