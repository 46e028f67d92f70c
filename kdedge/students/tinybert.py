"""The TinyBERT student: a BERT of any depth and width, with several kinds of initial weights."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from transformers import (
    AutoConfig,
    BertConfig,
    BertForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from kdedge.data.task import Task
from kdedge.errors import MachineError, UsageError, first_line
from kdedge.io.paths import resolve_model_path
from kdedge.nn.device import this_device
from kdedge.nn.labels import label_config
from kdedge.nn.layer_map import LayerMap
from kdedge.nn.text_model import TextClassifier
from kdedge.recipe import TinyBertConfig
from kdedge.runtime.spec import TaskSpec
from kdedge.students.as_bert import as_bert, family_of
from kdedge.students.fit_to_teacher import fitted_bert
from kdedge.students.kind import StudentKind
from kdedge.students.piece_mapping import with_vocabulary
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

    def build(
        self,
        config: TinyBertConfig,
        spec: TaskSpec,
        teacher: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
    ) -> BertForSequenceClassification:
        settings = label_config(spec)
        if config.activation:
            settings["hidden_act"] = config.activation
        if config.start == "scratch":
            return BertForSequenceClassification(_bert_config(config, settings, tokenizer))
        if config.start == "teacher":
            return _from_teacher(config, settings, teacher, tokenizer)
        if config.start == "shrink":
            return _like_teacher(config, settings, teacher, tokenizer)
        return _from_checkpoint(config, settings)

    def reads_training_texts(self, config: TinyBertConfig, teacher: TextClassifier) -> bool:
        """Return whether the student is cut out, or the teacher is of a type that is fitted."""
        if config.start == "shrink":
            return True
        return config.start == "teacher" and bool(family_of(teacher.model).differences)

    def lender(
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


def _from_teacher(
    config: TinyBertConfig,
    settings: dict[str, Any],
    teacher: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
) -> BertForSequenceClassification:
    """Copy embeddings, pooler and some layers of the teacher; the head starts at random."""
    teacher = as_bert(teacher).model
    width = _shape(config)
    del width["num_hidden_layers"]
    teacher_width = {name: getattr(teacher.config, name) for name in width}
    if width != teacher_width or len(tokenizer) > teacher.config.vocab_size:
        raise UsageError(
            "layers of the teacher fit only into a student of its width",
            f"student {width} with {len(tokenizer)} tokens, "
            f"teacher {teacher_width} with {teacher.config.vocab_size}",
            "give the student the teacher's sizes, "
            'or set student.start to "scratch" or to a BERT checkpoint',
        )
    depth = teacher.config.num_hidden_layers
    numbers = config.teacher_layers
    if not numbers:
        numbers = [number for _, number in LayerMap.uniform(config.layers, depth).pairs[1:]]
    _check_layer_numbers(numbers, depth)
    shape = teacher.config.to_dict() | {"num_hidden_layers": config.layers} | settings
    student = BertForSequenceClassification(BertConfig.from_dict(shape))
    with torch.no_grad():
        student.bert.embeddings.load_state_dict(teacher.bert.embeddings.state_dict())
        student.bert.pooler.load_state_dict(teacher.bert.pooler.state_dict())
        for layer, number in zip(student.bert.encoder.layer, numbers, strict=True):
            layer.load_state_dict(teacher.bert.encoder.layer[number - 1].state_dict())
    return student


def _like_teacher(
    config: TinyBertConfig,
    settings: dict[str, Any],
    teacher: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
) -> BertForSequenceClassification:
    """Build a smaller BERT with the teacher's other settings; `shrink` then sets its weights."""
    teacher = as_bert(teacher).model
    too_big = []
    for name, size in _shape(config).items():
        limit = getattr(teacher.config, name)
        if size > limit:
            too_big.append(f"{name} {size} > {limit}")
    if len(tokenizer) > teacher.config.vocab_size:
        too_big.append(f"{len(tokenizer)} tokens > {teacher.config.vocab_size}")
    if too_big:
        raise UsageError(
            "a shrunk student cannot be bigger than its teacher",
            ", ".join(too_big),
            'lower these sizes, or set student.start to "scratch"',
        )
    shape = teacher.config.to_dict() | _shape(config) | NO_DROPOUT | settings
    return BertForSequenceClassification(BertConfig.from_dict(shape))


def teacher_layers(config: TinyBertConfig, depth: int) -> list[int]:
    """Return the teacher layer (1-based) that each layer of a shrunk student starts from.

    Without `config.teacher_layers` they are evenly spaced and end with the last of `depth` layers.
    """
    numbers = config.teacher_layers
    if not numbers:
        numbers = [round((m + 1) * depth / config.layers) for m in range(config.layers)]
    _check_layer_numbers(numbers, depth)
    return numbers


def _check_layer_numbers(numbers: list[int], depth: int) -> None:
    if max(numbers) > depth:
        raise UsageError(
            "student.teacher_layers names a layer that does not exist",
            f"{max(numbers)}, but the teacher has {depth} layers",
            "count layers from 1",
        )


def _from_checkpoint(
    config: TinyBertConfig, settings: dict[str, Any]
) -> BertForSequenceClassification:
    path = str(resolve_model_path(config.start) or config.start)
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
    return BertForSequenceClassification.from_pretrained(
        path, use_safetensors=True, dtype=torch.float32, ignore_mismatched_sizes=True, **settings
    )
