"""The TinyBERT student: a BERT of any depth and width, with several kinds of initial weights."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, ClassVar

import torch
from transformers import (
    AutoConfig,
    BertConfig,
    BertForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from kdedge.data.task import Task
from kdedge.errors import MachineError, UsageError, first_line
from kdedge.io.paths import loadable_name
from kdedge.nn.device import this_device
from kdedge.nn.labels import label_config
from kdedge.nn.text_model import TextClassifier
from kdedge.nn.tokenization import load_tokenizer
from kdedge.recipe import TinyBertConfig
from kdedge.recipe.sizes import usable_positions
from kdedge.runtime.spec import TaskSpec
from kdedge.students.as_bert import as_bert, bert_config, family_of
from kdedge.students.fit_to_teacher import fitted_bert
from kdedge.students.kind import StudentKind
from kdedge.students.piece_mapping import check_vocabulary, with_vocabulary
from kdedge.students.shrink import shrink

NO_DROPOUT = {
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "classifier_dropout": 0.0,
}
"""For shrunk students: each of their fewer numbers carries more, so that dropout at the teacher's
rate destroys what they start with (benchmarks/results/types-trec.md)."""


class TinyBertKind(StudentKind):
    """A BERT with random weights, weights cut out of its teacher, or those of a checkpoint."""

    model_class: ClassVar[type[PreTrainedModel]] = BertForSequenceClassification

    def check(
        self,
        config: TinyBertConfig,
        spec: TaskSpec,
        source: PretrainedConfig,
        tokenizer: PreTrainedTokenizerFast,
    ) -> None:
        if config.start == "scratch":
            return
        if config.start not in ("teacher", "shrink"):
            _check_positions(config, _checkpoint_config(config))
            return
        _check_positions(config, source)
        family_of(source)
        sizes = bert_config(source)
        if config.start == "teacher":
            _check_equal_width(config, sizes)
        else:
            _check_not_bigger(config, sizes)
        teacher_layers(config, sizes.num_hidden_layers)

    def build(
        self,
        config: TinyBertConfig,
        spec: TaskSpec,
        teacher: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
    ) -> BertForSequenceClassification:
        self.check(config, spec, teacher.config, tokenizer)
        settings = label_config(spec)
        if config.activation:
            settings["hidden_act"] = config.activation
        if config.start == "scratch":
            return BertForSequenceClassification(_bert_config(config, settings, tokenizer))
        if config.start == "teacher":
            check_vocabulary(teacher.config, tokenizer)
            return _from_teacher(config, settings, teacher)
        if config.start == "shrink":
            check_vocabulary(teacher.config, tokenizer)
            return _like_teacher(config, settings, teacher)
        return _from_checkpoint(config, settings, tokenizer)

    def reads_training_texts(self, config: TinyBertConfig, teacher: TextClassifier) -> bool:
        """Return whether the student is cut out, or the teacher is of a type that is fitted."""
        if config.start == "shrink":
            return True
        return config.start == "teacher" and bool(family_of(teacher.model.config).differences)

    def source(
        self, config: TinyBertConfig, teacher: TextClassifier, task: Task, seed: int
    ) -> TextClassifier:
        """Return the teacher as a BERT, fitted to the teacher's states if it is of another type."""
        if config.start not in ("teacher", "shrink"):
            return teacher
        return fitted_bert(teacher, task, seed)

    def start_from_texts(
        self,
        config: TinyBertConfig,
        student: TextClassifier,
        teacher: TextClassifier,
        task: Task,
        seed: int,
    ) -> None:
        """If `start = "shrink"`, set the weights from the teacher, which is a BERT here."""
        if config.start != "shrink":
            return
        model = with_vocabulary(teacher.model, teacher.tokenizer, student.tokenizer)
        reader = TextClassifier(model, student.tokenizer, teacher.max_length)
        layers = teacher_layers(config, model.config.num_hidden_layers)
        shrink(student.model.to(this_device()), reader, task, layers, seed)


def _shape(config: TinyBertConfig) -> dict[str, int]:
    """Return the student's sizes as arguments of BertConfig."""
    return {
        "num_hidden_layers": config.layers,
        "hidden_size": config.hidden,
        "num_attention_heads": config.heads,
        "intermediate_size": config.intermediate,
    }


def _bert_config(
    config: TinyBertConfig, settings: dict[str, Any], tokenizer: PreTrainedTokenizerFast
) -> BertConfig:
    return BertConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=max(512, config.max_length),
        pad_token_id=tokenizer.pad_token_id,
        **_shape(config),
        **settings,
    )


def _check_equal_width(config: TinyBertConfig, source: BertConfig) -> None:
    width = _shape(config)
    del width["num_hidden_layers"]
    source_width = {name: getattr(source, name) for name in width}
    if width != source_width:
        raise UsageError(
            f"layers of {_source_name(config)} fit only into a student of its width",
            f"student {config.key}: {width}, {_source_name(config)}: {source_width}",
            "give the student these sizes, or "
            + _remove_assistant_or(
                config, 'set student.start to "shrink", "scratch" or a BERT checkpoint'
            ),
        )


def _remove_assistant_or(config: TinyBertConfig, hint: str) -> str:
    """Return a hint for a student without an assistant: with one, few starts are allowed."""
    return "remove student.assistant" if config.assistant else hint


def _check_not_bigger(config: TinyBertConfig, source: BertConfig) -> None:
    too_big = []
    for name, size in _shape(config).items():
        limit = getattr(source, name)
        if size > limit:
            too_big.append(f"{name} {size} > {limit}")
    if too_big:
        raise UsageError(
            f"a shrunk student cannot be bigger than {_source_name(config)}",
            f"student {config.key}: {', '.join(too_big)}",
            "lower these sizes, or "
            + _remove_assistant_or(config, 'set student.start to "scratch"'),
        )


def _source_name(config: TinyBertConfig) -> str:
    """Name the model whose weights a student takes."""
    return f"the assistant {config.assistant}" if config.assistant else "the teacher"


def _from_teacher(
    config: TinyBertConfig, settings: dict[str, Any], teacher: PreTrainedModel
) -> BertForSequenceClassification:
    """Copy embeddings, pooler and some layers of the teacher; the head starts at random."""
    teacher = as_bert(teacher).model
    numbers = teacher_layers(config, teacher.config.num_hidden_layers)
    shape = teacher.config.to_dict() | {"num_hidden_layers": config.layers} | settings
    student = BertForSequenceClassification(BertConfig.from_dict(shape))
    with torch.no_grad():
        student.bert.embeddings.load_state_dict(teacher.bert.embeddings.state_dict())
        student.bert.pooler.load_state_dict(teacher.bert.pooler.state_dict())
        for layer, number in zip(student.bert.encoder.layer, numbers, strict=True):
            layer.load_state_dict(teacher.bert.encoder.layer[number - 1].state_dict())
    return student


def _like_teacher(
    config: TinyBertConfig, settings: dict[str, Any], teacher: PreTrainedModel
) -> BertForSequenceClassification:
    """Build a smaller BERT with the teacher's other settings; `shrink` then sets its weights."""
    teacher = as_bert(teacher).model
    shape = teacher.config.to_dict() | _shape(config) | NO_DROPOUT | settings
    return BertForSequenceClassification(BertConfig.from_dict(shape))


def teacher_layers(config: TinyBertConfig, depth: int) -> list[int]:
    """Return the teacher layer (1-based) that each layer of a student starts from.

    Without `config.teacher_layers` they are evenly spaced, as far as whole numbers allow, and end
    with the last of `depth` layers.

    Raises:
        UsageError: If the teacher has too few layers.
    """
    numbers = config.teacher_layers
    if not numbers:
        if config.layers > depth:
            raise UsageError(
                f"{config.layers} student layers cannot start from {depth} layers",
                f"student {config.key}, {_source_name(config)}",
                "lower student.layers, or name a layer for each in student.teacher_layers",
            )
        numbers = [round((m + 1) * depth / config.layers) for m in range(config.layers)]
    _check_layer_numbers(numbers, depth)
    return numbers


def _check_layer_numbers(numbers: list[int], depth: int) -> None:
    if max(numbers) > depth:
        raise UsageError(
            "student.teacher_layers names a layer that does not exist",
            f"{max(numbers)} of {depth} layers",
            "count layers from 1",
        )


def _check_positions(config: TinyBertConfig, start: PretrainedConfig) -> None:
    """Raise UsageError if the model that the student starts from reads shorter texts."""
    positions = usable_positions(start.to_dict())
    if config.max_length > positions:
        raise UsageError(
            "the student reads fewer tokens than max_length",
            f"student {config.key}: max_length {config.max_length}, {positions} positions",
            "lower student.max_length",
        )


def _from_checkpoint(
    config: TinyBertConfig, settings: dict[str, Any], tokenizer: PreTrainedTokenizerFast
) -> BertForSequenceClassification:
    """Load the checkpoint; with another tokenizer, its embeddings are mapped to the new tokens.

    A checkpoint without a tokenizer of its own is taken as it is.
    """
    student = BertForSequenceClassification.from_pretrained(
        loadable_name(config.start),
        use_safetensors=True,
        dtype=torch.float32,
        ignore_mismatched_sizes=True,
        **settings,
    )
    if config.tokenizer:
        with suppress(MachineError, UsageError):
            student = with_vocabulary(student, load_tokenizer(config.start), tokenizer)
    check_vocabulary(student.config, tokenizer)
    return student


def _checkpoint_config(config: TinyBertConfig) -> PretrainedConfig:
    """Read the configuration of the checkpoint that a student starts from, and check it."""
    path = loadable_name(config.start)
    try:
        checkpoint = AutoConfig.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise MachineError(
            "the checkpoint of student.start cannot be loaded",
            f"{config.start}: {first_line(error)}",
            "give a local folder, or allow the hub",
        ) from error
    if checkpoint.model_type != "bert":
        raise UsageError(
            "a TinyBERT starts from a BERT",
            f"{config.start} is a {checkpoint.model_type}",
            "name a BERT checkpoint",
        )
    shape = _shape(config)
    checkpoint_shape = {name: getattr(checkpoint, name) for name in shape}
    if shape != checkpoint_shape:
        raise UsageError(
            "the student's shape differs from its checkpoint's",
            f"{shape} in the recipe, {checkpoint_shape} in {config.start}",
            "copy the shape of the checkpoint into the recipe",
        )
    return checkpoint
