"""The teacher's own tokens of the training texts, if student and teacher tokenize differently."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdedge.distillation.objective import HEAD_LOSSES, RELATIONS
from kdedge.errors import UsageError
from kdedge.nn.batching import Encoded
from kdedge.nn.text_model import TextClassifier
from kdedge.nn.token_alignment import END, FIRST, align, shift_masks, token_spans
from kdedge.recipe import ObjectiveConfig
from kdedge.transfer.texts import TransferTexts

PREFIX = "teacher_"
"""In a student's batch, the names of the teacher's inputs begin with this."""


def teacher_tokens(
    teacher: TextClassifier, student: TextClassifier, texts: TransferTexts
) -> Encoded | None:
    """Tokenize texts for the teacher, and align its tokens with those of the student.

    Returns None if both have the same vocabulary: the teacher then gets the student's tokens.

    Args:
        texts: The texts, with the teacher's mask token.
    """
    if student.tokenizer.get_vocab() == teacher.tokenizer.get_vocab():
        return None
    old, new = teacher.tokenizer.mask_token, student.tokenizer.mask_token
    own = texts.replace_mask_token(teacher.tokenizer, student.tokenizer)
    if own is texts:
        old = None
    student_spans = token_spans(student.tokenizer, own.texts, own.pairs, student.max_length)
    teacher_spans = token_spans(teacher.tokenizer, texts.texts, texts.pairs, teacher.max_length)
    shifted = []
    for row, spans in enumerate(teacher_spans):
        pair = texts.pairs[row] if texts.pairs is not None else None
        shifted.append(shift_masks(spans, texts.texts[row], pair, old, new))
    data = teacher.encode(texts.texts, texts.pairs)
    data.tokens[FIRST], data.tokens[END] = align(student_spans, shifted)
    return data


def check_attention_loss(objective: ObjectiveConfig) -> None:
    """Raise UsageError if the attention loss needs equal tokens in student and teacher."""
    if objective.attention_weight and objective.attention in HEAD_LOSSES:
        raise UsageError(
            f"attention {objective.attention} can be matched only token by token",
            "student and teacher have different vocabularies",
            f"set objective.attention to one of {', '.join(RELATIONS)}, which average over the "
            "teacher's tokens; or set attention_weight = 0; or give the student the teacher's "
            "tokenizer",
        )


def add_teacher_tokens(data: Encoded, teacher_data: Encoded) -> None:
    """Add the teacher's tokens to a student's, so that each batch holds both."""
    for name, values in teacher_data.tokens.items():
        data.tokens[PREFIX + name] = values


def split_batch(batch: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split a batch into the inputs of the student and those of the teacher.

    If the batch has no teacher inputs, both are the same.
    """
    student: dict[str, Any] = {}
    teacher: dict[str, Any] = {}
    for name, values in batch.items():
        if name.startswith(PREFIX):
            teacher[name.removeprefix(PREFIX)] = values
        else:
            student[name] = values
    return student, teacher or student
