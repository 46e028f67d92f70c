"""Build a student from its recipe, or load a saved one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import BertForSequenceClassification, PreTrainedModel, PreTrainedTokenizerFast

from kdedge.errors import IntegrityError, UsageError
from kdedge.io.paths import resolve_model_path
from kdedge.nn.labels import label_config
from kdedge.nn.tokenization import load_tokenizer
from kdedge.recipe import BiLstmConfig, TinyBertConfig
from kdedge.runtime.spec import TaskSpec
from kdedge.students.bilstm import BiLstmForSequenceClassification, BiLstmModelConfig
from kdedge.students.tinybert import build_tinybert
from kdedge.students.wordpiece import DEFAULT_SIZE, train_wordpiece

MODELS: dict[str, type[PreTrainedModel]] = {
    "bert": BertForSequenceClassification,
    BiLstmModelConfig.model_type: BiLstmForSequenceClassification,
}
"""model_type in config.json -> class."""


def student_tokenizer(
    config: TinyBertConfig | BiLstmConfig,
    teacher_tokenizer: PreTrainedTokenizerFast,
    texts: Sequence[str] = (),
) -> PreTrainedTokenizerFast:
    """Return the tokenizer that the recipe names; by default the start's, else the teacher's.

    texts: they train the tokenizer if the recipe names "wordpiece".
    """
    if config.tokenizer == "wordpiece":
        return train_wordpiece(texts, config.vocabulary or DEFAULT_SIZE)
    if config.tokenizer:
        return load_tokenizer(config.tokenizer)
    if config.start in ("teacher", "scratch", "shrink"):
        return teacher_tokenizer
    return load_tokenizer(config.start)


def build_student(
    config: TinyBertConfig | BiLstmConfig,
    spec: TaskSpec,
    teacher: PreTrainedModel,
    teacher_tokenizer: PreTrainedTokenizerFast,
    texts: Sequence[str] = (),
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Build a student with its initial weights, and its tokenizer.

    texts: they train the tokenizer if the recipe names "wordpiece".

    Raises:
        UsageError: If the student cannot start from this teacher as the recipe says.
    """
    tokenizer = student_tokenizer(config, teacher_tokenizer, texts)
    if config.start == "teacher" and tokenizer.get_vocab() != teacher_tokenizer.get_vocab():
        raise UsageError(
            "a student can start from the teacher only with the teacher's vocabulary",
            f"the vocabulary of {config.tokenizer} is different",
            'set student.start = "scratch"',
        )
    if isinstance(config, TinyBertConfig):
        return build_tinybert(config, label_config(spec), teacher, tokenizer), tokenizer
    return _build_bilstm(config, spec, teacher, tokenizer), tokenizer


def _build_bilstm(
    config: BiLstmConfig,
    spec: TaskSpec,
    teacher: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
) -> BiLstmForSequenceClassification:
    if spec.pair and "token_type_ids" not in tokenizer.model_input_names:
        raise UsageError(
            "a BiLSTM on pairs needs a tokenizer with token_type_ids",
            f"{type(tokenizer).__name__} has none",
            'set student.tokenizer = "wordpiece"',
        )
    table = teacher.get_input_embeddings().weight.detach()  # (V, H of the teacher)
    model_config = BiLstmModelConfig(
        vocab_size=len(tokenizer),
        embedding_dim=config.embedding or table.shape[1],
        hidden_size=config.hidden,
        head_size=config.head,
        dropout=config.dropout,
        pair=spec.pair,
        pad_token_id=tokenizer.pad_token_id,
        **label_config(spec),
    )
    student = BiLstmForSequenceClassification(model_config)
    if config.start == "teacher":
        columns = principal_columns(table[: len(tokenizer)], model_config.embedding_dim)
        with torch.no_grad():
            student.embedding.weight[:] = columns
    return student


def principal_columns(table: torch.Tensor, width: int) -> torch.Tensor:
    """Project an embedding table onto its principal directions, scaled to standard deviation 1.

    The initial weights of an LSTM expect inputs of that size. A BERT's table has a twentieth of
    it, because a LayerNorm follows.

    Args:
        table: *Shape:* (vocabulary, teacher_width)
        width: Columns of the result. At `teacher_width` the table is scaled but not projected.

    Raises:
        UsageError: If `width` is larger than the table's.
    """
    if width > table.shape[1]:
        raise UsageError(
            "a student's embeddings cannot be wider than the teacher's that they start from",
            f"{width} > {table.shape[1]}",
            "lower student.embedding",
        )
    if width < table.shape[1]:
        centred = table - table.mean(0)
        directions: torch.Tensor = torch.linalg.svd(centred.T @ centred)[2]
        table = centred @ directions[:width].T
    return table / table.std()


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
