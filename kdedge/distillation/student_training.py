"""One student's training, as a stage that is kept or as a trial that is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from kdedge.data.task import Task
from kdedge.distillation.layer_cache import LayerCache, open_layer_cache
from kdedge.distillation.module import DistillationModule
from kdedge.distillation.objective import Objective
from kdedge.errors import UsageError
from kdedge.io.atomic import hash_files
from kdedge.io.paths import resolve_model_path
from kdedge.nn.batching import Encoded
from kdedge.nn.device import this_device
from kdedge.nn.text_model import TextClassifier, save_measured
from kdedge.nn.tokenization import encode
from kdedge.nn.training import Training, batches, train, validation_predictor
from kdedge.recipe import BiLstmConfig, FitConfig, ObjectiveConfig, Recipe, TinyBertConfig
from kdedge.run.layout import RunDir
from kdedge.run.progress import SILENT, Progress
from kdedge.run.stage import DEFAULT_STAGES, WEIGHTS, StageContext, stage
from kdedge.runtime import metrics
from kdedge.students.build import build_student, load_student
from kdedge.students.shrink import shrink
from kdedge.students.subset_embedding import train_used_embeddings_only
from kdedge.students.tinybert import teacher_layers
from kdedge.students.vocabulary import trim
from kdedge.teacher.ensemble import teacher_hash
from kdedge.teacher.finetune import Teacher
from kdedge.transfer.dataset import TransferSet

LABELS_ONLY = ObjectiveConfig(logits="mse", logits_weight=0.0, labels_weight=1.0)
"""What the label-only baseline is asked to match. It starts as the distilled one does, which may be with its teacher's own layers or embeddings."""


@dataclass(frozen=True)
class DistillContext:
    """All that the students of one run share. chosen: which part of the made texts, where that was found out; "" for all."""

    recipe: Recipe
    run: RunDir
    task: Task
    teacher: Teacher
    transfer: TransferSet
    chosen: str = ""


def train_student(
    context: DistillContext,
    student: TinyBertConfig | BiLstmConfig,
    folder: Path,
    objective: ObjectiveConfig,
    transfer: str,
    *,
    fit: FitConfig | None = None,
    before: Path | None = None,
    stages: StageContext = DEFAULT_STAGES,
) -> None:
    """One stage of training, in `folder`; transfer: a hash of what is learned from; before: the stage whose weights it goes on from."""
    inputs = stage_inputs(context, student, objective, transfer)
    inputs["objective"] |= {"before": hash_files(before, WEIGHTS)} if before else {}
    teaching = StudentTraining(
        context,
        student,
        objective,
        fit or student.fit,
        before,
        f"{folder.name} {Recipe.student_name(student)}",
        stages.progress,
    )
    stage(folder, inputs, teaching, stages=stages)


def stage_inputs(
    context: DistillContext,
    student: TinyBertConfig | BiLstmConfig,
    objective: ObjectiveConfig,
    transfer: str,
) -> dict[str, Any]:
    """What decides a student's weights; transfer: a hash of what it learns from."""
    unset = {
        key
        for key in ("layers_first", "vocabulary", "activation")
        if getattr(student, key, None) is None
    }  # keys that older runs did not have
    return {
        "student": student.model_dump(
            mode="json", exclude={"objective", "baseline", "quantize", "assistant"} | unset
        ),
        "objective": objective.model_dump(mode="json", exclude=objective.idle()),
        "start": _start_hash(student),
        "teacher": teacher_hash(context.run),
        "transfer": transfer,
        "data": context.task.content_hash(),
        "seed": context.recipe.training_seed,
    }


def training_without_stage(
    context: DistillContext,
    student: TinyBertConfig | BiLstmConfig,
    folder: Path,
    *,
    watch: Callable[[float], float] = float,
    progress: Progress = SILENT,
) -> StudentTraining:
    """How a student is trained outside of any stage: its last stage, the one before already trained in `folder` where it has two."""
    title, before, objective = f"student {Recipe.student_name(student)}", None, student.objective
    if isinstance(student, TinyBertConfig) and student.layers_first:
        before, objective = folder / "layers", student.objective.answers_alone()
        first = StudentTraining(
            context,
            student,
            student.objective.layers_alone(),
            student.layers_first,
            None,
            title,
            progress,
        )
        first.learn(before)[0].model.save_pretrained(before)
    return StudentTraining(context, student, objective, student.fit, before, title, progress, watch)


@dataclass(frozen=True)
class StudentTraining:
    """How one student stage is made; called with the folder to fill.

    watch: is told each score on the validation split, and may raise to give up.
    score: logits (N, C) on the validation split -> the score that chooses the best moment; default: the task's metric.
    """

    context: DistillContext
    student: TinyBertConfig | BiLstmConfig
    objective: ObjectiveConfig
    fit: FitConfig
    before: Path | None
    title: str
    progress: Progress
    watch: Callable[[float], float] = float
    score: Callable[[np.ndarray], float] | None = None

    def __call__(self, part: Path) -> dict[str, Any]:
        student, objective, _ = self.learn(part)
        learned = {"layer_map": objective.learned.table()} if objective.learned else {}
        return save_measured(student, self.context.task, part, progress=self.progress) | learned

    def learn(self, part: Path) -> tuple[TextClassifier, Objective, float]:
        """Build the student and train it; also returns its score on the validation split."""
        torch.manual_seed(self.context.recipe.training_seed)
        task, teacher = self.context.task, self.context.teacher
        model, tokenizer = build_student(
            self.student,
            task.spec,
            teacher.model,
            teacher.tokenizer,
            (*task.train.texts, *(task.train.pairs or ())),
        )
        if isinstance(self.student, TinyBertConfig) and self.student.start == "shrink":
            self._shrink(model, tokenizer)
        if self.before:
            model.load_state_dict(load_student(self.before).state_dict())
        positions = getattr(model.config, "max_position_embeddings", None)
        if positions and self.student.max_length > positions:
            raise UsageError(
                "the student reads fewer tokens than asked",
                f"max_length {self.student.max_length}, {positions} positions",
                "lower max_length",
            )
        student = self._trimmed(TextClassifier(model, tokenizer, self.student.max_length))
        model, tokenizer = student.model.to(this_device()), student.tokenizer
        validation = student.encode(task.validation.texts, task.validation.pairs)
        plan = self._training(student, validation)
        objective = Objective(
            self.objective,
            task.spec.kind,
            model.config,
            teacher.model.config,
            batches=batches(plan),
        )
        live = teacher if self.objective.reads_layers else None
        if live and tokenizer.get_vocab() != teacher.tokenizer.get_vocab():
            raise UsageError(
                "layers can be matched only token by token",
                "student and teacher have different vocabularies",
                "set hidden, attention and embedding weights to 0, or give the student the teacher's tokenizer",
            )
        stored = self._stored(objective, plan.data) if live else None
        read = np.concatenate(
            [
                plan.data.tokens["input_ids"].values,
                validation.tokens["input_ids"].values,
                [tokenizer.pad_token_id],
            ]
        )
        with train_used_embeddings_only(model, read):
            score = train(
                DistillationModule(model, objective, live, stored).to(this_device()),
                plan,
                part,
                progress=self.progress,
            )
        return student, objective, score

    def _stored(self, objective: Objective, data: Encoded) -> LayerCache | None:
        """The teacher's layers on the texts of the training, and the texts numbered, where there is room for them."""
        context, recipe = self.context, self.context.recipe.transfer
        room, place = 1e9 * recipe.layers_gb, context.run.shared
        stored = open_layer_cache(
            context.teacher,
            teacher_hash(context.run),
            data,
            objective.reads,
            place,
            room=room,
            batch_tokens=recipe.batch_tokens,
            progress=self.progress,
        )
        if stored:
            data.columns["row"] = np.arange(len(data))
        return stored

    def _shrink(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
        teacher = self.context.teacher
        if tokenizer.get_vocab() != teacher.tokenizer.get_vocab():
            raise UsageError(
                "a shrunk student reads with its teacher's vocabulary",
                f"{self.student.tokenizer}",
                "remove student.tokenizer",
            )
        assert isinstance(self.student, TinyBertConfig)
        layers = teacher_layers(self.student, teacher.model.config.num_hidden_layers)
        shrink(
            model.to(this_device()),
            teacher,
            self.context.task,
            layers,
            self.context.recipe.training_seed,
        )

    def _trimmed(self, student: TextClassifier) -> TextClassifier:
        """With the pieces that written texts use most, where the recipe wants fewer: what a rare word means is learned from its parts."""
        texts = self.context.transfer.texts
        return (
            trim(student, texts.written, self.student.vocabulary, texts.augmented)
            if self.student.vocabulary
            else student
        )

    def _training(self, student: TextClassifier, validation: Encoded) -> Training:
        task, transfer = self.context.task, self.context.transfer
        if self.objective == LABELS_ONLY:
            transfer = transfer.take(transfer.texts.labelled)
        texts = transfer.texts.replace_mask_token(self.context.teacher.tokenizer, student.tokenizer)
        score = self.score or (
            lambda logits: metrics.score(
                task.spec.metric, task.spec.kind, logits, task.validation.labels
            )
        )
        data = encode(
            student.tokenizer,
            texts.texts,
            texts.pairs,
            student.max_length,
            labels=texts.labels,
            teacher_logits=transfer.logits,
        )
        return Training(
            fit=self.fit,
            seed=self.context.recipe.training_seed,
            data=data,
            pad=student.pad,
            predict=validation_predictor(validation, student.pad),
            score=lambda logits: self.watch(score(logits)),
            title=self.title,
        )


def _start_hash(student: TinyBertConfig | BiLstmConfig) -> str:
    place = (
        None
        if student.start in ("teacher", "scratch", "shrink")
        else resolve_model_path(student.start)
    )
    return hash_files(place, WEIGHTS) if place else student.start
