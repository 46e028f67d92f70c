"""Train one student: as a cached stage of a run, or outside of any stage for a trial."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kdedge.data.task import Task
from kdedge.distillation.first_weights import FirstWeights
from kdedge.distillation.layer_source import LayerSource
from kdedge.distillation.module import DistillationModule
from kdedge.distillation.objective import Objective
from kdedge.distillation.teacher_tokens import teacher_tokens
from kdedge.io.model_files import hash_model, tokenizer_hash
from kdedge.io.paths import resolve_model_path
from kdedge.nn.best_checkpoint import remove_best
from kdedge.nn.device import this_device
from kdedge.nn.label_loss import validation_predictor
from kdedge.nn.text_model import MeasuredResult, TextClassifier, save_measured, score_of
from kdedge.nn.tokenization import load_tokenizer
from kdedge.nn.training import train
from kdedge.nn.training_plan import Training
from kdedge.nn.training_stage import training_stage
from kdedge.recipe import FitConfig, ObjectiveConfig, Recipe, StudentConfig
from kdedge.run.layout import RunDir
from kdedge.run.paths import StudentDir
from kdedge.run.progress import SILENT, Progress
from kdedge.run.stage import DEFAULT_STAGES, StageContext, read_result
from kdedge.students.build import load_student
from kdedge.students.subset_embedding import train_used_embeddings_only
from kdedge.students.vocabulary import trim
from kdedge.teacher.finetune import Teacher, teacher_hash
from kdedge.transfer.dataset import TransferSet
from kdedge.transfer.texts import TransferTexts

LABELS_ONLY = ObjectiveConfig(logits="mse", logits_weight=0.0, labels_weight=1.0)
"""The objective of the label-only baseline. Its start is that of the distilled student."""

NOT_IN_THE_WEIGHTS = {"objective", "baseline", "quantize", "general", "assistant"}
"""Keys of a student that do not decide its weights, or that have inputs of their own."""

NO_TEXTS = TransferSet(TransferTexts.of((), None, (), np.zeros(0)), np.zeros((0, 0), np.float16))


@dataclass(frozen=True)
class DistillContext:
    """What all trainings of one run share.

    Attributes:
        transfer_key: Identifies the transfer set in the cache key of a stage.
        stages: Whether a changed stage is made again, and where progress is reported.
    """

    recipe: Recipe
    run: RunDir
    task: Task
    teacher: Teacher
    transfer: TransferSet = NO_TEXTS
    transfer_key: str = ""
    stages: StageContext = DEFAULT_STAGES

    @property
    def seed(self) -> int:
        return self.recipe.training_seed


@dataclass(frozen=True)
class TrainingStep:
    """One of the consecutive trainings of a student.

    Attributes:
        folder: Where the trained student is saved; its name is also shown as progress.
        previous: Folder of the step whose weights this one starts from, or None.
    """

    folder: Path
    objective: ObjectiveConfig
    fit: FitConfig
    previous: Path | None = None


def training_steps(student: StudentConfig, folders: StudentDir) -> list[TrainingStep]:
    """Return the steps that train a student, in order."""
    if not student.first_stage:
        return [TrainingStep(folders.student, student.objective, student.fit)]
    layers = TrainingStep(folders.layers, student.objective.layers_alone(), student.first_stage)
    outputs = TrainingStep(
        folders.student, student.objective.outputs_alone(), student.fit, layers.folder
    )
    return [layers, outputs]


def train_student(context: DistillContext, student: StudentConfig, step: TrainingStep) -> None:
    """Run one step of a student's training as a cached stage."""
    inputs = stage_inputs(context, student, step.objective)
    inputs["objective"]["previous"] = hash_model(step.previous) if step.previous else None
    training_stage(step.folder, inputs, StudentTraining(context, student, step), context.stages)


def stage_inputs(
    context: DistillContext, student: StudentConfig, objective: ObjectiveConfig
) -> dict[str, Any]:
    """Return everything that decides the weights of a student."""
    return {
        "student": student.model_dump(mode="json", exclude=NOT_IN_THE_WEIGHTS),
        "objective": objective.model_dump(mode="json"),
        "start": _first_weights(context.run, student),
        "tokenizer": tokenizer_hash(student.tokenizer),
        "teacher": teacher_hash(context.run),
        "transfer": context.transfer_key,
        "data": context.task.content_hash(),
        "seed": context.seed,
    }


def training_without_stage(
    context: DistillContext,
    student: StudentConfig,
    folder: Path,
    *,
    on_eval: Callable[[float], float] = float,
    progress: Progress = SILENT,
) -> StudentTraining:
    """Return the last training step of a student, to run it outside of any stage.

    Earlier steps are trained immediately, in `folder`.

    Args:
        on_eval: As in `StudentTraining`.
    """
    context = replace(context, stages=StageContext(progress=progress))
    *earlier, last = training_steps(student, StudentDir(student.key, folder))
    for step in earlier:
        trained = StudentTraining(context, student, step).learn(step.folder)
        trained.student.model.save_pretrained(step.folder)
        remove_best(step.folder)
    return StudentTraining(context, student, last, on_eval)


@dataclass(frozen=True)
class TrainingPlan:
    """The data and the settings of a student's training.

    Attributes:
        token_ids: All token ids that occur in its texts or in the validation split.
    """

    training: Training
    token_ids: np.ndarray


@dataclass(frozen=True)
class TrainedStudent:
    """A trained student.

    Attributes:
        validation: Its score on the validation split.
    """

    student: TextClassifier
    validation: float


TrainEmbeddings = Callable[[TextClassifier, np.ndarray], AbstractContextManager[None]]


def _train_used_rows(student: TextClassifier, used: np.ndarray) -> AbstractContextManager[None]:
    return train_used_embeddings_only(student.model, used)


@dataclass(frozen=True)
class StudentTraining:
    """One step of a student's training; call it with the folder to fill.

    Attributes:
        on_eval: Called with each score on the validation split; returns the score, or raises an
            exception to stop.
        train_embeddings: How the word embeddings are trained, given the student and all token ids
            that it will read.
    """

    context: DistillContext
    student: StudentConfig
    step: TrainingStep
    on_eval: Callable[[float], float] = float
    train_embeddings: TrainEmbeddings = _train_used_rows

    def __call__(self, part: Path) -> dict[str, Any]:
        """Train, save and measure the student; return the result of the stage."""
        trained = self.learn(part)
        progress = self.context.stages.progress
        measured = save_measured(trained.student, self.context.task, part, progress=progress)
        return measured.to_json()

    def learn(self, part: Path) -> TrainedStudent:
        """Build and train the student; `part` holds checkpoints, the log and the best weights."""
        torch.manual_seed(self.context.seed)
        student = self._build()
        plan = self._plan(student)
        module = self._module(student, plan.training)
        with self.train_embeddings(student, plan.token_ids):
            score = train(module, plan.training, part, progress=self.context.stages.progress)
        return TrainedStudent(student, score)

    def score(self, logits: np.ndarray) -> float:
        """Score logits (N, C) of the validation split; the weights with the highest score stay."""
        return score_of(self.context.task.spec, logits, self.context.task.validation)

    def _build(self) -> TextClassifier:
        """Return the student with the weights it starts from."""
        context = self.context
        first = FirstWeights(
            config=starting_config(context.run, self.student),
            task=context.task,
            source=load_source(context, self.student),
            source_hash=source_hash(context.run, self.student),
            folder=context.run.shared,
            seed=context.seed,
            progress=context.stages.progress,
        )
        student = first.build()
        if self.student.vocabulary:
            texts = context.transfer.texts
            student = trim(student, texts.written, self.student.vocabulary, texts.made)
        if self.step.previous:
            student.model.load_state_dict(load_student(self.step.previous).state_dict())
        student.model.to(this_device())
        return student

    def _plan(self, student: TextClassifier) -> TrainingPlan:
        """Encode the texts, and return what the training optimizes and how it is scored."""
        transfer = self.context.transfer
        if self.step.objective == LABELS_ONLY:
            transfer = transfer.take(transfer.texts.labelled)
        texts = transfer.texts.replace_mask_token(self.context.teacher.tokenizer, student.tokenizer)
        data = student.encode(
            texts.texts, texts.pairs, labels=texts.labels, teacher_logits=transfer.logits
        )
        split = self.context.task.validation
        validation = student.encode(split.texts, split.pairs)
        training = Training(
            fit=self.step.fit,
            seed=self.context.seed,
            data=data,
            pad=student.pad,
            predict=validation_predictor(validation, student.pad, self.step.fit.precision),
            score=lambda logits: self.on_eval(self.score(logits)),
            title=f"{self.step.folder.name} {self.student.key}",
        )
        read = (data.tokens["input_ids"].values, validation.tokens["input_ids"].values)
        return TrainingPlan(training, np.concatenate([*read, [student.tokenizer.pad_token_id]]))

    def _module(self, student: TextClassifier, training: Training) -> DistillationModule:
        """Return the student with its objective, and the teacher if layers are matched."""
        context = self.context
        teacher = context.teacher
        objective = Objective(
            self.step.objective,
            context.task.spec.kind,
            student.model.config,
            teacher.model.config,
        )
        if not self.step.objective.reads_layers:
            return DistillationModule(student.model, objective, None).to(this_device())
        layers = LayerSource(
            teacher,
            teacher_hash(context.run),
            context.run.shared,
            context.recipe.transfer,
            context.stages.progress,
        )
        own_tokens = teacher_tokens(teacher, student, context.transfer.texts)
        return layers.module(student, objective, training, own_tokens)


def load_trained_student(folder: Path) -> TextClassifier:
    """Load the student of a finished stage, on this machine's device."""
    model = load_student(folder).to(this_device())
    max_length = read_result(folder, MeasuredResult).max_length
    return TextClassifier(model, load_tokenizer(folder), max_length)


def load_source(context: DistillContext, student: StudentConfig) -> TextClassifier:
    """Return the classifier whose weights a student may take: its assistant, or the teacher.

    Raises UsageError if the assistant has not been trained.
    """
    if not student.assistant:
        return context.teacher
    assistant = context.run.students[student.assistant]
    assistant.require_trained()
    return load_trained_student(assistant.student)


def source_hash(run: RunDir, student: StudentConfig) -> str:
    """Return a hash of the weights of the student's assistant, or of the teacher."""
    if not student.assistant:
        return teacher_hash(run)
    return hash_model(run.students[student.assistant].student)


def starting_config(run: RunDir, student: StudentConfig) -> StudentConfig:
    """Return the student with its general student, if it has one, as the checkpoint to start from.

    The general student's tokenizer is then its own.
    """
    if student.general_stage is None:
        return student
    start = {"start": str(run.general_student(student)), "tokenizer": None}
    return student.model_copy(update=start)


def start_hash(student: StudentConfig) -> str:
    """Return a hash of the student's initial checkpoint, or the value of `start`."""
    if student.checkpoint is None:
        return student.start
    folder = resolve_model_path(student.checkpoint)
    return hash_model(folder) if folder else student.start


def _first_weights(run: RunDir, student: StudentConfig) -> str:
    """Return a hash of the model that the student starts from, or its name if there is no file."""
    if not student.assistant:
        return start_hash(starting_config(run, student))
    folder = run.students[student.assistant].student
    return hash_model(folder) if folder.is_dir() else student.assistant
