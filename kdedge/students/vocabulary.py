"""Trim a WordPiece vocabulary to the pieces that the task's texts use most.

Tokenizer and embedding table are trimmed together. WordPiece (Schuster and Nakajima 2012) splits a
word that is no piece itself into smaller pieces. All single characters stay, so no word becomes
unknown.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from kdedge.errors import CheckFailed, UsageError
from kdedge.io.atomic import write_atomic
from kdedge.nn.text_model import TextClassifier
from kdedge.nn.tokenization import load_tokenizer

BATCH = 4096
"""Texts per call of the tokenizer."""


def check_is_wordpiece(tokenizer: PreTrainedTokenizerFast) -> None:
    """Raise UsageError unless the vocabulary of a tokenizer can be trimmed."""
    kind = type(tokenizer.backend_tokenizer.model).__name__
    if kind != "WordPiece":
        raise UsageError(
            "only a WordPiece vocabulary can be trimmed",
            kind,
            "remove student.vocabulary, student.quantize.trim_vocab or --trim-vocab",
        )


def trim(
    student: TextClassifier, texts: Sequence[str], size: int, augmented: Sequence[str] = ()
) -> TextClassifier:
    """Return the student with a vocabulary of at most `size` pieces.

    Args:
        student: The student, which is not changed.
        texts: Their most frequent pieces are kept.
        size: Number of pieces, special tokens included.
        augmented: Texts made from `texts`. They are only checked: how often a random replacement
            inserts a word says nothing about how often users write it.

    Raises:
        UsageError: If the tokenizer is not a WordPiece, or `size` is too small.
        CheckFailed: If a text or an old piece has more unknown words than before.
    """
    tokenizer = student.tokenizer
    check_is_wordpiece(tokenizer)
    if size >= len(tokenizer):
        return student
    special = set(tokenizer.all_special_ids) | set(tokenizer.get_added_vocab().values())
    kept = choose_pieces(tokenizer.get_vocab(), special, piece_counts(tokenizer, texts), size)
    trimmed = trim_tokenizer(tokenizer, kept)
    check_unknowns(tokenizer, trimmed, texts)
    check_unknowns(tokenizer, trimmed, augmented)
    model = trimmed_model(student.model, kept, trimmed.pad_token_id)
    return TextClassifier(model, trimmed, student.max_length)


def piece_counts(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> np.ndarray:
    """Count how often each piece occurs in the texts. *Shape:* (vocabulary,)"""
    counts = np.zeros(len(tokenizer), np.int64)
    for ids in _token_ids(tokenizer, texts):
        np.add.at(counts, ids, 1)
    return counts


def choose_pieces(
    vocabulary: Mapping[str, int], special: set[int], counts: np.ndarray, size: int
) -> np.ndarray:
    """Return the ids of `size` pieces, ascending.

    Required pieces come first: special tokens, single characters, and pieces with a character that
    is no piece itself. Then come the most frequent pieces of the texts, then those with the lowest
    ids, because vocabularies are sorted by frequency.

    Args:
        vocabulary: Piece -> id.
        special: Ids of the special tokens.
        counts: Occurrences of each id. *Shape:* (vocabulary,)
        size: Number of pieces to return.

    Raises:
        UsageError: If there are more than `size` required pieces.
    """
    initials = {piece for piece in vocabulary if len(piece) == 1}
    continuations = {piece[2:] for piece in vocabulary if len(piece) == 3 and piece[:2] == "##"}

    def is_required(piece: str, number: int) -> bool:
        continues = piece.startswith("##") and len(piece) > 2
        characters = piece[2:] if continues else piece
        if number in special or len(characters) == 1:
            return True
        first_known = characters[0] in (continuations if continues else initials)
        replaceable = first_known and set(characters[1:]) <= continuations
        return not replaceable and not _is_unreachable(piece)

    required = []
    optional = []
    for piece, number in vocabulary.items():
        if is_required(piece, number):
            required.append(number)
        else:
            optional.append((-int(counts[number]), _is_unreachable(piece), number))
    if size < len(required):
        raise UsageError(
            f"a vocabulary of {size} pieces is too small",
            f"{len(required)} special tokens and characters must stay",
            f"set it to at least {len(required)}",
        )
    chosen = sorted(optional)[: size - len(required)]
    return np.array(sorted([*required, *(number for *_, number in chosen)]), np.int64)


def _is_unreachable(piece: str) -> bool:
    """Return whether the tokenizer can never produce a piece, as it splits off brackets."""
    return len(piece) > 2 and piece.startswith("[") and piece.endswith("]")


def trim_tokenizer(tokenizer: PreTrainedTokenizerFast, kept: np.ndarray) -> PreTrainedTokenizerFast:
    """Return the same tokenizer with only the pieces `kept`, renumbered in their old order."""
    new_ids = {int(old): new for new, old in enumerate(kept)}
    document = json.loads(tokenizer.backend_tokenizer.to_str())
    old_vocabulary = document["model"]["vocab"]
    document["model"]["vocab"] = {
        piece: new_ids[old] for piece, old in old_vocabulary.items() if old in new_ids
    }
    for token in document["added_tokens"]:
        token["id"] = new_ids[token["id"]]
    _renumber_special(document["post_processor"] or {}, new_ids)
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        tokenizer.save_pretrained(folder)
        for path in folder.glob("vocab*"):
            path.unlink()
        write_atomic(folder / "tokenizer.json", json.dumps(document, ensure_ascii=False))
        trimmed = load_tokenizer(folder)
    pieces = {number: piece for piece, number in tokenizer.get_vocab().items()}
    if trimmed.get_vocab() != {pieces[old]: new for old, new in new_ids.items()}:
        raise CheckFailed(
            "the trimmed tokenizer has other pieces than it should",
            type(tokenizer).__name__,
            "do not trim its vocabulary",
        )
    return trimmed


def _renumber_special(processor: dict[str, Any], new_ids: Mapping[int, int]) -> None:
    """Renumber the ids that a post-processor of tokenizer.json adds: a template or BERT's own."""
    for token in processor.get("special_tokens", {}).values():
        token["ids"] = [new_ids[old] for old in token["ids"]]
    for name in ("sep", "cls"):
        if name in processor:
            piece, old = processor[name]
            processor[name] = [piece, new_ids[old]]
    for part in processor.get("processors", []):
        _renumber_special(part, new_ids)


def trimmed_model(model: PreTrainedModel, kept: np.ndarray, pad: int) -> PreTrainedModel:
    """Return a copy whose embedding table has only the rows `kept`."""
    copy = deepcopy(model)
    rows: torch.Tensor = copy.get_input_embeddings().weight.detach()[torch.from_numpy(kept)]
    table = nn.Embedding(len(kept), rows.shape[1], padding_idx=pad)
    table.weight = nn.Parameter(rows.clone())
    copy.set_input_embeddings(table)
    copy.config.vocab_size = len(kept)
    copy.config.pad_token_id = pad
    return copy


def check_unknowns(
    before: PreTrainedTokenizerFast, after: PreTrainedTokenizerFast, texts: Sequence[str]
) -> None:
    """Raise CheckFailed if a text or an old piece has more unknown words than before."""
    pieces = [piece.removeprefix("##") for piece in before.get_vocab()]
    for group in (pieces, texts):
        old_ids, new_ids = _token_ids(before, group), _token_ids(after, group)
        for text, old, new in zip(group, old_ids, new_ids, strict=True):
            if (new == after.unk_token_id).sum() > (old == before.unk_token_id).sum():
                raise CheckFailed(
                    "trimming the vocabulary made a word unknown",
                    f"{text[:80]!r}",
                    "keep more pieces",
                )


def _token_ids(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> Iterable[np.ndarray]:
    """Yield the token ids (T,) of each text, not truncated."""
    for start in range(0, len(texts), BATCH):
        batch = list(texts[start : start + BATCH])
        for encoding in tokenizer.backend_tokenizer.encode_batch_fast(batch):
            yield np.array(encoding.ids, np.int64)
