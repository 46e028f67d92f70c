"""Build a student from its recipe, or load a saved one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from kdedge.data.task import Task
from kdedge.errors import IntegrityError, UsageError
from kdedge.io.paths import resolve_model_path
from kdedge.nn.text_model import TextClassifier
from kdedge.nn.tokenization import load_tokenizer
from kdedge.recipe import StudentConfig
from kdedge.recipe.students import WORDPIECE_SIZE
from kdedge.runtime.spec import TaskSpec
from kdedge.students.bilstm import BiLstmKind
from kdedge.students.kind import StudentKind
from kdedge.students.piece_mapping import with_vocabulary
from kdedge.students.tinybert import TinyBertKind
from kdedge.students.wordpiece import train_wordpiece

STUDENT_BY_KIND: dict[str, StudentKind] = {"tinybert": TinyBertKind(), "bilstm": BiLstmKind()}
"""student.kind in a recipe -> how it is built."""

MODELS: dict[str, type[PreTrainedModel]] = {
    kind.model_class.config_class.model_type: kind.model_class for kind in STUDENT_BY_KIND.values()
}
"""model_type in config.json -> class."""


def student_tokenizer(
    config: StudentConfig,
    teacher_tokenizer: PreTrainedTokenizerFast,
    texts: Sequence[str] = (),
) -> PreTrainedTokenizerFast:
    """Return the student's tokenizer; by default that of its checkpoint, else the teacher's.

    Args:
        texts: Training texts of the tokenizer if the recipe names "wordpiece".
    """
    if config.tokenizer == "wordpiece":
        return train_wordpiece(texts, config.vocabulary or WORDPIECE_SIZE)
    if config.tokenizer:
        return load_tokenizer(config.tokenizer)
    return load_tokenizer(config.checkpoint) if config.checkpoint else teacher_tokenizer


def build_student(
    config: StudentConfig,
    spec: TaskSpec,
    teacher: PreTrainedModel,
    teacher_tokenizer: PreTrainedTokenizerFast,
    texts: Sequence[str] = (),
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Build a student with its initial weights, and its tokenizer.

    Args:
        teacher: The student copies its weights if the recipe says so; embeddings are mapped piece
            by piece if the student has another vocabulary.
        texts: Training texts of the tokenizer if the recipe names "wordpiece".

    Raises:
        UsageError: If the student cannot start from this teacher as the recipe says.
    """
    tokenizer = student_tokenizer(config, teacher_tokenizer, texts)
    if config.start in ("teacher", "shrink"):
        teacher = with_vocabulary(teacher, teacher_tokenizer, tokenizer)
    return STUDENT_BY_KIND[config.kind].build(config, spec, teacher, tokenizer), tokenizer


def reads_training_texts(config: StudentConfig, teacher: TextClassifier) -> bool:
    """Return whether a student's first weights are fitted to training texts.

    That runs the teacher several times, on up to 1,024 texts.
    """
    return STUDENT_BY_KIND[config.kind].reads_training_texts(config, teacher)


def new_student(
    config: StudentConfig, task: Task, teacher: TextClassifier, seed: int
) -> TextClassifier:
    """Build a student with its initial weights and its tokenizer.

    Args:
        task: Its training split may decide weights, and trains the tokenizer "wordpiece".
        teacher: The student may copy its weights. It may be the student's assistant.
        seed: Seed for the choice of texts if there are many.

    Raises:
        UsageError: If start and shape do not fit together, or do not fit this teacher.
    """
    kind = STUDENT_BY_KIND[config.kind]
    source = kind.source(config, teacher, task, seed)
    texts = (*task.train.texts, *(task.train.pairs or ()))
    model, tokenizer = build_student(config, task.spec, source.model, source.tokenizer, texts)
    student = TextClassifier(model, tokenizer, config.max_length)
    kind.start_from_texts(config, student, source, task, seed)
    return student


def load_student(folder: Path) -> PreTrainedModel:
    """Load a saved student in evaluation mode.

    Raises:
        UsageError: If the folder holds no student of kdedge.
        IntegrityError: If its weights are damaged.
    """
    path = resolve_model_path(str(folder)) or Path(folder)
    try:
        kind = json.loads((path / "config.json").read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(
            "this folder holds no student", f"{path}: {error}", "name the student/ folder of a run"
        ) from error
    if kind not in MODELS:
        raise UsageError(
            "this is not a student of kdedge",
            f"{path}: model_type is {kind}",
            f"use one of: {', '.join(MODELS)}",
        )
    try:
        model = MODELS[kind].from_pretrained(str(path), use_safetensors=True, dtype=torch.float32)
    except SafetensorError as error:
        raise IntegrityError(
            "the student's weights cannot be read",
            f"{path}: {error}",
            "distill again with --force",
        ) from error
    return model.eval()
