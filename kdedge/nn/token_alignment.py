"""Find, for each token of a student, the tokens of its teacher for the same characters.

Student and teacher may split a text differently. A token of the student then learns from the mean
over the teacher's tokens that share characters with it. Special tokens have no characters: they are
aligned with the teacher's special tokens at the same place (start, between two texts, end).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from kdedge.nn.ragged import RaggedArray
from kdedge.nn.signals import Signals
from kdedge.nn.tokenization import tokenized_blocks

FIRST = "align_first"
"""Input of a teacher's batch: the first teacher token of each student token."""

END = "align_end"
"""The teacher token after the last one."""

START_MARK, FIRST_TEXT, MIDDLE_MARK, SECOND_TEXT, END_MARK = range(5)
"""Parts of a tokenized text or pair, in their order."""


@dataclass(frozen=True)
class TokenSpans:
    """The character spans of the T tokens of a text.

    Attributes:
        parts: Part of the input of each token, from START_MARK to END_MARK. *Shape:* (T,)
        starts: First character of each token in its text; 0 for special tokens. *Shape:* (T,)
        ends: The character after the last one of each token. *Shape:* (T,)
    """

    parts: np.ndarray
    starts: np.ndarray
    ends: np.ndarray


def token_spans(
    tokenizer: PreTrainedTokenizerFast,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    max_length: int,
) -> list[TokenSpans]:
    """Tokenize N texts as `encode` does, and return the spans of their tokens."""
    start_marks = {tokenizer.cls_token_id, tokenizer.bos_token_id}
    spans = []
    for block in tokenized_blocks(tokenizer, texts, pairs, max_length):
        for encoding in block.encodings:
            offsets = np.array(encoding.offsets, np.int64).reshape(-1, 2)
            parts = _parts(encoding.ids, encoding.sequence_ids, start_marks)
            spans.append(TokenSpans(parts, offsets[:, 0], offsets[:, 1]))
    return spans


def _parts(
    ids: Sequence[int], sequence_ids: Sequence[int | None], start_marks: set[int | None]
) -> np.ndarray:
    """Return the part of each token; END_MARK is the last special token but start marks."""
    parts = np.zeros(len(ids), np.int64)
    last_mark = None
    for i, (number, sequence) in enumerate(zip(ids, sequence_ids, strict=True)):
        if sequence is not None:
            parts[i] = SECOND_TEXT if sequence else FIRST_TEXT
        elif number in start_marks:
            parts[i] = START_MARK
        else:
            parts[i] = MIDDLE_MARK
            last_mark = i
    if last_mark is not None:
        parts[last_mark] = END_MARK
    return parts


def shift_masks(
    spans: TokenSpans, text: str, pair: str | None, old: str | None, new: str | None
) -> TokenSpans:
    """Shift the spans as if each mask token `old` in the texts were replaced by `new`."""
    if old is None or old == new:
        return spans
    starts, ends = spans.starts.copy(), spans.ends.copy()
    for part, written in ((FIRST_TEXT, text), (SECOND_TEXT, pair or "")):
        stops = np.array([match.end() for match in re.finditer(re.escape(old), written)])
        rows = spans.parts == part
        difference = len(new or "") - len(old)
        starts[rows] += difference * np.searchsorted(stops, starts[rows], "right")
        ends[rows] += difference * np.searchsorted(stops, ends[rows], "right")
    return replace(spans, starts=starts, ends=ends)


def align(
    student: Iterable[TokenSpans], teacher: Iterable[TokenSpans]
) -> tuple[RaggedArray, RaggedArray]:
    """Align N texts: find the range of teacher tokens for each student token.

    Args:
        student: Spans of the student's tokens.
        teacher: Spans of the teacher's tokens of the same texts.

    Returns:
        For each text and student token the first teacher token, and the one after the last.
    """
    firsts, ends = [], []
    for student_spans, teacher_spans in zip(student, teacher, strict=True):
        first, end = align_text(student_spans, teacher_spans)
        firsts.append(first.tolist())
        ends.append(end.tolist())
    return RaggedArray.of(firsts), RaggedArray.of(ends)


def align_text(student: TokenSpans, teacher: TokenSpans) -> tuple[np.ndarray, np.ndarray]:
    """Align one text; each student token gets at least one teacher token.

    If no teacher token covers a student token's characters, it gets the teacher token before them:
    the teacher's tokenizer drops some characters, and truncates long texts elsewhere.

    Returns:
        First teacher token of each student token, and the one after the last. *Shape:* (T,) each
    """
    first = np.zeros(len(student.parts), np.int64)
    end = np.ones(len(student.parts), np.int64)
    for part in np.unique(student.parts):
        own = np.flatnonzero(student.parts == part)
        theirs = np.flatnonzero(teacher.parts == part)
        if not len(theirs):
            before = np.flatnonzero(teacher.parts < part)
            first[own] = before.max(initial=0)
            end[own] = first[own] + 1
        elif part in (FIRST_TEXT, SECOND_TEXT):
            overlap = _overlap(
                student.starts[own], student.ends[own], teacher.starts[theirs], teacher.ends[theirs]
            )
            first[own] = theirs[0] + overlap[0]
            end[own] = theirs[0] + overlap[1]
        else:
            first[own] = theirs[0]
            end[own] = theirs[-1] + 1
    return first, end


def _overlap(
    starts: np.ndarray, ends: np.ndarray, their_starts: np.ndarray, their_ends: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the range of teacher tokens that share characters with each student token.

    `their_` spans are the teacher's. Tokens are in text order, so both ends of spans ascend.
    """
    first = np.searchsorted(their_ends, starts, "right")
    end = np.searchsorted(their_starts, ends, "left")
    alone = end <= first
    before = np.searchsorted(their_starts, starts[alone], "right") - 1
    first[alone] = before.clip(min=0)
    end[alone] = first[alone] + 1
    return first, end


def without_alignment(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Return the teacher's batch without the alignment, as inputs of its model."""
    return {name: values for name, values in batch.items() if name not in (FIRST, END)}


def averaged(signals: Signals, batch: Mapping[str, torch.Tensor]) -> Signals:
    """Average the teacher's states over the tokens of each student token.

    Args:
        signals: The teacher's outputs for `batch`.
        batch: The teacher's batch; without an alignment, the signals are returned unchanged.

    Returns:
        Hidden states (B, T, H), queries, keys and values (B, A, T, D) for the student's T tokens;
        no attention scores, which cannot be averaged.
    """
    if FIRST not in batch:
        return signals
    first, end = batch[FIRST][..., None], batch[END][..., None]  # (B, T, 1)
    tokens = torch.arange(batch["attention_mask"].shape[1], device=first.device)
    chosen = (tokens >= first) & (tokens < end)  # (B, T, tokens of the teacher)
    weights = chosen / (end - first).clamp(min=1)
    weights = weights.to(signals.hidden[0].dtype)
    hidden = tuple(weights @ states for states in signals.hidden)
    vectors = []
    for query, key, value in signals.vectors:
        by_head = weights[:, None]
        vectors.append((by_head @ query, by_head @ key, by_head @ value))
    return Signals(signals.logits, hidden, (), tuple(vectors))
