"""Build a student from its recipe, or load a saved one."""

from __future__ import annotations

import json
from collections.abc import Iterable
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
from kdedge.students.wordpiece import SIZE, learned_tokenizer

MODELS: dict[str, type[PreTrainedModel]] = {
    "bert": BertForSequenceClassification,
    "kdedge-bilstm": BiLstmForSequenceClassification,
}
"""model_type in config.json -> class."""


def student_tokenizer(
    recipe: TinyBertConfig | BiLstmConfig,
    teacher_tokenizer: PreTrainedTokenizerFast,
    texts: Iterable[str] = (),
) -> PreTrainedTokenizerFast:
    """The tokenizer the recipe names, or one learned from `texts`; else that of the student's start; else the teacher's."""
    if recipe.tokenizer == "wordpiece":
        return learned_tokenizer(texts, recipe.vocabulary or SIZE)
    if recipe.tokenizer:
        return load_tokenizer(recipe.tokenizer)
    return (
        teacher_tokenizer
        if recipe.start in ("teacher", "scratch", "shrink")
        else load_tokenizer(recipe.start)
    )


def build_student(
    recipe: TinyBertConfig | BiLstmConfig,
    spec: TaskSpec,
    teacher: PreTrainedModel,
    teacher_tokenizer: PreTrainedTokenizerFast,
    texts: Iterable[str] = (),
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A student that has learned nothing yet, and the tokenizer it reads with; texts: what a vocabulary is learned from, where the recipe wants one.

    Raises UsageError where the student cannot start as the recipe says from this teacher.
    """
    tokenizer = student_tokenizer(recipe, teacher_tokenizer, texts)
    labels = label_config(spec)
    if isinstance(recipe, TinyBertConfig):
        if recipe.start == "teacher" and tokenizer.get_vocab() != teacher_tokenizer.get_vocab():
            raise UsageError(
                "layers can start from the teacher only where the vocabulary is the same",
                f"{recipe.tokenizer} is another",
                'set student.start = "scratch"',
            )
        return build_tinybert(recipe, labels, teacher, tokenizer), tokenizer
    if spec.pair and "token_type_ids" not in tokenizer.model_input_names:
        raise UsageError(
            "a BiLSTM on pairs needs a tokenizer with token_type_ids",
            f"{type(tokenizer).__name__} has none",
            'set student.tokenizer = "wordpiece"',
        )
    return _build_bilstm(
        recipe,
        spec,
        labels,
        teacher,
        tokenizer,
        tokenizer.get_vocab() == teacher_tokenizer.get_vocab(),
    ), tokenizer


def _build_bilstm(
    recipe: BiLstmConfig,
    spec: TaskSpec,
    labels: dict[str, object],
    teacher: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    same_words: bool,
) -> BiLstmForSequenceClassification:
    table = teacher.get_input_embeddings().weight.detach()  # (V, H of the teacher)
    if recipe.start == "teacher" and not same_words:
        raise UsageError(
            "word embeddings can start from the teacher only where the vocabulary is the same",
            f"{recipe.tokenizer} is another",
            'set student.start = "scratch"',
        )
    config = BiLstmModelConfig(
        vocab_size=len(tokenizer),
        embedding_dim=recipe.embedding or table.shape[1],
        hidden_size=recipe.hidden,
        head_size=recipe.head,
        dropout=recipe.dropout,
        pair=spec.pair,
        pad_token_id=tokenizer.pad_token_id,
        **labels,
    )
    student = BiLstmForSequenceClassification(config)
    if recipe.start == "teacher":
        with torch.no_grad():
            student.embedding.weight[:] = principal_columns(
                table[: len(tokenizer)], config.embedding_dim
            )
    return student


def principal_columns(table: torch.Tensor, width: int) -> torch.Tensor:
    """(V, H) -> (V, width) of standard deviation 1: the table itself, or its projection onto its principal directions.

    An LSTM's own initial weights expect inputs of that size; a BERT's table, which a LayerNorm follows, has a twentieth of it.
    """
    if width > table.shape[1]:
        raise UsageError(
            "embeddings cannot start wider than the teacher's",
            f"{width} > {table.shape[1]}",
            "lower student.embedding",
        )
    if width < table.shape[1]:
        centred = table - table.mean(0)
        directions: torch.Tensor = torch.linalg.svd(centred.T @ centred)[2]
        table = centred @ directions[:width].T
    return table / table.std()


def load_student(folder: Path) -> PreTrainedModel:
    """A saved student in evaluation mode. Raises UsageError for a folder that holds none, IntegrityError where its weights are damaged."""
    place = resolve_model_path(str(folder)) or Path(folder)
    try:
        kind = json.loads((place / "config.json").read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(
            "this folder holds no student", f"{place}: {error}", "name the student/ folder of a run"
        ) from error
    if kind not in MODELS:
        raise UsageError(
            "this is not a student of kdedge",
            f"{place}: model_type {kind}",
            f"one of {', '.join(MODELS)}",
        )
    try:
        return (
            MODELS[kind]
            .from_pretrained(str(place), use_safetensors=True, dtype=torch.float32)
            .eval()
        )
    except SafetensorError as error:
        raise IntegrityError(
            "the student's weights cannot be read",
            f"{place}: {error}",
            "distill again with --force",
        ) from error
