"""The TinyBERT student: a BERT of any depth and width, and the places it can start from."""

from __future__ import annotations

import torch
from transformers import (
    AutoConfig,
    BertConfig,
    BertForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from kdedge.errors import MachineError, UsageError, first_line
from kdedge.io.paths import resolve_model_path
from kdedge.nn.layer_map import LayerMap
from kdedge.recipe import TinyBertConfig


def build_tinybert(
    recipe: TinyBertConfig,
    settings: dict[str, object],
    teacher: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
) -> BertForSequenceClassification:
    """A BERT classifier of the recipe's shape, started as the recipe says.

    settings: num_labels, id2label, label2id and problem_type, as a configuration takes them.
    Raises UsageError when the start and the shape do not fit.
    """
    if recipe.activation:
        settings = {**settings, "hidden_act": recipe.activation}
    if recipe.start == "scratch":
        return BertForSequenceClassification(_config(recipe, settings, tokenizer))
    if recipe.start == "teacher":
        return _from_teacher(recipe, settings, teacher, tokenizer)
    if recipe.start == "shrink":
        return _to_be_filled(recipe, settings, teacher, tokenizer)
    return _from_checkpoint(recipe, settings)


def _config(
    recipe: TinyBertConfig, settings: dict[str, object], tokenizer: PreTrainedTokenizerFast
) -> BertConfig:
    return BertConfig(
        vocab_size=len(tokenizer),
        num_hidden_layers=recipe.layers,
        hidden_size=recipe.hidden,
        num_attention_heads=recipe.heads,
        intermediate_size=recipe.intermediate,
        max_position_embeddings=max(512, recipe.max_length),
        pad_token_id=tokenizer.pad_token_id,
        **settings,
    )


def _from_teacher(
    recipe: TinyBertConfig,
    settings: dict[str, object],
    teacher: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
) -> BertForSequenceClassification:
    """Embeddings, pooler and chosen layers of a BERT teacher of the same width; the head is left to learn."""
    theirs = teacher.config
    if theirs.model_type != "bert":
        raise UsageError(
            "only a BERT teacher can lend its layers",
            f"the teacher is a {theirs.model_type}",
            'set student.start to "scratch" or to a BERT checkpoint',
        )
    ours = {"hidden": recipe.hidden, "heads": recipe.heads, "intermediate": recipe.intermediate}
    needed = {
        "hidden": theirs.hidden_size,
        "heads": theirs.num_attention_heads,
        "intermediate": theirs.intermediate_size,
    }
    if ours != needed or len(tokenizer) > theirs.vocab_size:
        raise UsageError(
            "layers of the teacher fit only a student of its width",
            f"student {ours} with {len(tokenizer)} tokens, teacher {needed} with {theirs.vocab_size}",
            'give the student the teacher\'s sizes, or set student.start to "scratch" or to a BERT checkpoint',
        )
    config = BertConfig.from_dict(
        {**theirs.to_dict(), "num_hidden_layers": recipe.layers, **settings}
    )
    student = BertForSequenceClassification(config)
    chosen = recipe.teacher_layers or [
        t for _, t in LayerMap.uniform(recipe.layers, theirs.num_hidden_layers).pairs[1:]
    ]
    if max(chosen) > theirs.num_hidden_layers:
        raise UsageError(
            "student.teacher_layers names a layer that is not there",
            f"{max(chosen)} of {theirs.num_hidden_layers}",
            "count layers from 1",
        )
    with torch.no_grad():
        student.bert.embeddings.load_state_dict(teacher.bert.embeddings.state_dict())
        student.bert.pooler.load_state_dict(teacher.bert.pooler.state_dict())
        for layer, number in zip(student.bert.encoder.layer, chosen, strict=True):
            layer.load_state_dict(teacher.bert.encoder.layer[number - 1].state_dict())
    return student


def _to_be_filled(
    recipe: TinyBertConfig,
    settings: dict[str, object],
    teacher: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
) -> BertForSequenceClassification:
    """A smaller BERT of the teacher's make, for `kdedge.students.shrink` to fill."""
    theirs = teacher.config
    if theirs.model_type != "bert":
        raise UsageError(
            "only a BERT teacher can be shrunk",
            f"the teacher is a {theirs.model_type}",
            'set student.start to "scratch" or to a BERT checkpoint',
        )
    ours = {
        "num_hidden_layers": recipe.layers,
        "hidden_size": recipe.hidden,
        "num_attention_heads": recipe.heads,
        "intermediate_size": recipe.intermediate,
    }
    bigger = [
        f"{name} {size} of {getattr(theirs, name)}"
        for name, size in ours.items()
        if size > getattr(theirs, name)
    ]
    if bigger or len(tokenizer) > theirs.vocab_size:
        found = ", ".join(bigger) or f"{len(tokenizer)} tokens of {theirs.vocab_size}"
        raise UsageError(
            "a student shrunk from its teacher is nowhere bigger",
            found,
            'lower these sizes, or set student.start to "scratch"',
        )
    return BertForSequenceClassification(
        BertConfig.from_dict({**theirs.to_dict(), **ours, **settings})
    )


def teacher_layers(recipe: TinyBertConfig, teacher_layers: int) -> list[int]:
    """The teacher layers (1-based) that a student's layers start from: the recipe's, else evenly spaced with the last at the end."""
    chosen = recipe.teacher_layers or [
        round((m + 1) * teacher_layers / recipe.layers) for m in range(recipe.layers)
    ]
    if max(chosen) > teacher_layers:
        raise UsageError(
            "student.teacher_layers names a layer that is not there",
            f"{max(chosen)} of {teacher_layers}",
            "count layers from 1",
        )
    return chosen


def _from_checkpoint(
    recipe: TinyBertConfig, settings: dict[str, object]
) -> BertForSequenceClassification:
    place = str(resolve_model_path(recipe.start) or recipe.start)
    try:
        config = AutoConfig.from_pretrained(place)
    except (OSError, ValueError) as error:
        raise MachineError(
            "the student's start cannot be loaded",
            f"{recipe.start}: {first_line(error)}",
            "give a local folder, or allow the hub",
        ) from error
    if config.model_type != "bert":
        raise UsageError(
            "a TinyBERT starts from a BERT",
            f"{recipe.start} is a {config.model_type}",
            "name a BERT checkpoint",
        )
    ours = (recipe.layers, recipe.hidden, recipe.heads, recipe.intermediate)
    theirs = (
        config.num_hidden_layers,
        config.hidden_size,
        config.num_attention_heads,
        config.intermediate_size,
    )
    if ours != theirs:
        raise UsageError(
            "the student's shape is not that of its start",
            f"layers, hidden, heads, intermediate are {ours} in the recipe and {theirs} in {recipe.start}",
            "copy the shape of the checkpoint into the recipe",
        )
    return BertForSequenceClassification.from_pretrained(
        place, use_safetensors=True, dtype=torch.float32, ignore_mismatched_sizes=True, **settings
    )
