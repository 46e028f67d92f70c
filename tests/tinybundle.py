"""A tiny run on disk, as distillation leaves it, and the bundles that the real export makes of it."""

from __future__ import annotations

from pathlib import Path

import tiny
import torch
from transformers import PreTrainedModel

from kdedge.data.task import Task
from kdedge.io.atomic import hash_files
from kdedge.nn.labels import label_config
from kdedge.nn.text_model import TextClassifier, save_measured
from kdedge.recipe import Recipe
from kdedge.run.layout import RunDir
from kdedge.run.stage import WEIGHTS, stage
from kdedge.students.bilstm import BiLstmForSequenceClassification, BiLstmModelConfig
from kdedge.teacher.finetune import load_teacher
from kdedge.transfer.dataset import TransferBuilder
from kdedge.transfer.texts import collect_texts

MAX_LENGTH = 48


def student(task: Task, kind: str) -> PreTrainedModel:
    """A random student whose answers differ from text to text."""
    torch.manual_seed(3)
    labels = label_config(task.spec)
    if kind == "bilstm":
        model = BiLstmForSequenceClassification(
            BiLstmModelConfig(
                vocab_size=200,
                embedding_dim=12,
                hidden_size=7,
                head_size=9,
                pair=task.spec.pair,
                **labels,
            )
        )
    else:
        model = tiny.bert(initializer_range=0.3, outputs=task.spec.outputs)
        model.config.update(labels)
    return model.eval()


TUNING = {"steps": 6, "checks": 1, "batch_size": 16, "calibration_texts": 64}


def make_run(
    folder: Path,
    task: Task,
    kinds: tuple[str, ...] = ("bilstm",),
    teacher: PreTrainedModel | None = None,
    quantize: dict[str, object] | None = None,
    model: PreTrainedModel | None = None,
) -> RunDir:
    """quantize: keys of the recipe's section beside `TUNING`. model: every student; default: `student`."""
    # Untrained students: their logits are the teacher's or anything, and only the squared difference tells which.
    students = [
        {"kind": kind, "quantize": TUNING | (quantize or {}), "objective": {"logits": "mse"}}
        for kind in kinds
    ]
    recipe = {
        "name": "tiny",
        "data": {"source": "nowhere"},
        "teacher": {"model": "a-tiny-teacher"},
        "student": students,
    }
    run = RunDir.create(Recipe.model_validate(recipe), folder)
    torch.manual_seed(4)
    _save(run.teacher, teacher or student(task, "tinybert"), task)
    labelled = load_teacher(run.teacher, task.spec, MAX_LENGTH)
    builder = TransferBuilder(run.recipe.transfer, labelled, hash_files(run.teacher, WEIGHTS))
    builder.build(collect_texts(task), run.transfer)
    for kind, home in zip(kinds, run.student_dirs.values(), strict=True):
        _save(home / "student", model or student(task, kind), task)
    return run


def _save(folder: Path, model: PreTrainedModel, task: Task) -> None:
    whole = TextClassifier(model.eval(), tiny.tokenizer(), MAX_LENGTH)
    stage(
        folder,
        {"made": "here"},
        lambda part: {"model": "a-tiny-teacher"} | save_measured(whole, task, part),
    )
