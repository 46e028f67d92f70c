"""Train general students, which learn a teacher's layers before any task.

TinyBERT (Jiao et al. 2020, section 3.2) calls this general distillation. The teacher has not been
fine-tuned, and the texts have no labels, so the loss compares layers alone. One general student
serves every task with the same teacher: a task's student starts from its encoder, with a new head.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kdedge.data.task import Task
from kdedge.distillation.general_texts import NO_TASK, GeneralTexts, read_general_texts
from kdedge.distillation.layer_source import LayerSource
from kdedge.distillation.objective import Objective
from kdedge.distillation.student_training import start_hash
from kdedge.io.model_files import tokenizer_hash
from kdedge.nn.best_checkpoint import BEST_FILES, remove_best
from kdedge.nn.device import this_device
from kdedge.nn.text_model import TextClassifier
from kdedge.nn.training import train
from kdedge.nn.training_plan import Training
from kdedge.recipe import GeneralConfig, StudentConfig, TeacherConfig
from kdedge.recipe.general import KEYS_OF_THE_TASK
from kdedge.run.layout import RunDir
from kdedge.run.locks import locked_stage
from kdedge.run.processes import barrier, is_main, on_main_process
from kdedge.run.progress import Progress
from kdedge.run.stage import StageContext
from kdedge.students.build import new_student
from kdedge.students.subset_embedding import train_used_embeddings_only
from kdedge.teacher.finetune import has_head, load_encoder, pretrained_hash

OTHER_KEYS = {*KEYS_OF_THE_TASK, "general", "assistant"}
"""Keys of a student that do not decide its general student, or have inputs of their own."""


def train_general_students(run: RunDir, task: Task, stages: StageContext) -> None:
    """Train the general students that the recipe's students start from, as cached stages."""
    for student in run.recipe.student:
        train_general_student(run, student, task, stages)


def train_general_student(
    run: RunDir, student: StudentConfig, task: Task, stages: StageContext
) -> None:
    """Train the general student of one student, or reuse it if another task has made it.

    Nothing happens if the student has none. The task decides only what is said about its texts.
    """
    general = student.general_stage
    if general is None:
        return
    texts = read_general_texts(general, run.recipe.data.encoding)
    _say_test_texts(student, texts, task, stages.progress)
    _say_fine_tuned(run, student, task, stages.progress)
    training = GeneralTraining(run, student, general, texts, stages.progress)
    waiting = "another process trains this general student; waiting for it"
    folder = run.general_student(student)
    locked_stage(folder, training.inputs(), training, waiting, stages, BEST_FILES)
    on_main_process(lambda: remove_best(folder))


def _say_test_texts(
    student: StudentConfig, texts: GeneralTexts, task: Task, progress: Progress
) -> None:
    """Say how many texts of the test split, also of its pairs, are among the general texts."""
    test = {*task.test.texts, *(task.test.pairs or ())}
    found = texts.among(test)
    if found:
        progress.say(
            f"general/{student.key}: {len(found):,} of {len(test):,} test texts are among its "
            "texts, without labels"
        )


def _say_fine_tuned(run: RunDir, student: StudentConfig, task: Task, progress: Progress) -> None:
    """Warn if the general student would learn from a teacher that is fine-tuned already."""
    teacher, general = run.recipe.teacher, student.general_stage
    if general is None or general.teacher or teacher.fine_tune:
        return
    if has_head(teacher.model, task.spec, teacher.revision):
        progress.say(
            f"general/{student.key}: warning: {teacher.model} is fine-tuned already; set "
            "student.general.teacher to the encoder that it comes from"
        )


@dataclass(frozen=True)
class GeneralTraining:
    """The training of a general student; call it with the folder to fill."""

    run: RunDir
    student: StudentConfig
    general: GeneralConfig
    texts: GeneralTexts
    progress: Progress

    def inputs(self) -> dict[str, Any]:
        """Return everything that decides the weights, and nothing of the task."""
        student = self.student
        is_trained = student.tokenizer == "wordpiece"  # any other vocabulary is trimmed later
        return {
            "teacher": pretrained_hash(self._teacher_config),
            "student": student.model_dump(mode="json", exclude=OTHER_KEYS),
            "vocabulary": student.vocabulary if is_trained else None,
            "start": start_hash(student),
            "tokenizer": tokenizer_hash(student.tokenizer),
            "texts": self.texts.content_hash(),
            "max_length": self.general.max_length,
            "fit": self.general.fit.model_dump(mode="json"),
            "objective": self.general.objective.model_dump(mode="json"),
            "seed": self._seed,
        }

    def __call__(self, part: Path) -> dict[str, Any]:
        """Train the general student and save its encoder; return the result of the stage."""
        torch.manual_seed(self._seed)
        teacher = load_encoder(self._teacher_config, NO_TASK)
        config = self.student.model_copy(update={"max_length": self.general.max_length})
        student = new_student(config, self.texts.as_task(), teacher, self._seed)
        student.model.to(this_device())
        training = self._training(student)
        objective = Objective(
            self.general.objective.as_objective(),
            NO_TASK.kind,
            student.model.config,
            teacher.model.config,
        )
        own_tokens = self.texts.teacher_tokens(teacher, student)
        layers = LayerSource(
            teacher,
            pretrained_hash(self._teacher_config),
            self.run.general_student(self.student).parents[1],
            self.run.recipe.transfer,
            self.progress,
        )
        module = layers.module(student, objective, training, own_tokens)
        ids = training.data.tokens["input_ids"].values
        used = np.append(np.unique(ids), student.tokenizer.pad_token_id)
        with train_used_embeddings_only(student.model, used):
            train(module, training, part, progress=self.progress)
        encoder = student.model.base_model
        if is_main():
            encoder.save_pretrained(part)
            student.tokenizer.save_pretrained(part)
        barrier()
        return {"texts": len(self.texts), "parameters": encoder.num_parameters()}

    @property
    def _seed(self) -> int:
        """The seed of the recipe: runs that differ in the seed of their students share it."""
        return self.run.recipe.seed

    @property
    def _teacher_config(self) -> TeacherConfig:
        changes: dict[str, Any] = {"max_length": self.general.max_length}
        if self.general.teacher is not None:
            changes |= {"model": self.general.teacher, "revision": None}
        return self.run.recipe.teacher.model_copy(update=changes)

    def _training(self, student: TextClassifier) -> Training:
        data = self.texts.encode(student)
        data.columns["teacher_logits"] = np.zeros((len(data), NO_TASK.outputs), np.float16)
        return Training(
            fit=self.general.fit,
            seed=self._seed,
            data=data,
            pad=student.pad,
            predict=None,
            score=float,  # is not called
            title=f"general {self.student.key}",
        )
