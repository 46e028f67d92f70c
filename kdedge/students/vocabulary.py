"""A smaller vocabulary: the pieces that the written texts of a transfer set use, most frequent first, and letters for all the rest.

Tokenizer and embedding table are cut together. WordPiece (Schuster and Nakajima 2012) reads a word whose piece is gone
as smaller ones, and every single character stays, so nothing becomes unknown that was not.
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
from kdedge.students.subset_embedding import word_embedding

CHOSEN_BY = "written"
"""The texts that choose the pieces: what was cut by another rule is another student."""

BATCH = 4096
"""Texts that are tokenized at once."""


def trim(
    student: TextClassifier, texts: Sequence[str], size: int, made: Sequence[str] = ()
) -> TextClassifier:
    """The student with a vocabulary of `size` pieces at most, chosen for `texts`.

    made: texts made from them, which choose nothing: words that were put there by chance are no likelier in a text to
    come than those that the vocabulary names first.
    Raises UsageError where its tokenizer is no WordPiece or `size` is too small for what must stay, GateFailed where
    a text, or a piece of the old vocabulary, would hold an unknown word that it did not.
    """
    tokenizer = student.tokenizer
    if tokenizer.backend_tokenizer.model.__class__.__name__ != "WordPiece":
        raise UsageError(
            "only a WordPiece vocabulary can be trimmed",
            tokenizer.backend_tokenizer.model.__class__.__name__,
            "keep its vocabulary whole",
        )
    if size >= len(tokenizer):
        return student
    special = set(tokenizer.all_special_ids) | set(tokenizer.get_added_vocab().values())
    kept = chosen_pieces(tokenizer.get_vocab(), special, piece_counts(tokenizer, texts), size)
    smaller = trimmed_tokenizer(tokenizer, kept)
    check_unknowns(tokenizer, smaller, texts)
    check_unknowns(tokenizer, smaller, made)
    return TextClassifier(
        trimmed_model(student.model, kept, smaller.pad_token_id), smaller, student.max_length
    )


def piece_counts(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> np.ndarray:
    """(V,) how often each piece occurs in the texts."""
    counts = np.zeros(len(tokenizer), np.int64)
    for ids in _ids(tokenizer, texts):
        np.add.at(counts, ids, 1)
    return counts


def chosen_pieces(
    vocabulary: Mapping[str, int], special: set[int], counts: np.ndarray, size: int
) -> np.ndarray:
    """Ids of `size` pieces, ascending: what must stay, then what the texts use most, then what the vocabulary names first.

    Vocabularies are written in order of frequency. What must stay: special tokens, single characters, and pieces with
    a character that has no piece of its own.
    """
    alone = {
        True: {p[2:] for p in vocabulary if len(p) == 3 and p.startswith("##")},
        False: {p for p in vocabulary if len(p) == 1},
    }

    def must_stay(piece: str, number: int) -> bool:
        goes_on = piece.startswith("##") and len(piece) > 2
        bare = piece[2:] if goes_on else piece
        covered = bare[0] in alone[goes_on] and set(bare[1:]) <= alone[True]
        return number in special or len(bare) == 1 or not (covered or _unreachable(piece))

    needed = {number for piece, number in vocabulary.items() if must_stay(piece, number)}
    if size < len(needed):
        raise UsageError(
            "the vocabulary cannot be that small",
            f"{size}; {len(needed)} special tokens and characters must stay",
            f"at least {len(needed)}",
        )
    others = [
        (-int(counts[number]), _unreachable(piece), number)
        for piece, number in vocabulary.items()
        if number not in needed
    ]
    return np.array(
        sorted(needed | {number for *_, number in sorted(others)[: size - len(needed)]}), np.int64
    )


def _unreachable(piece: str) -> bool:
    """Whether no text gives this piece: brackets are words of their own."""
    return len(piece) > 2 and piece.startswith("[") and piece.endswith("]")


def trimmed_tokenizer(
    tokenizer: PreTrainedTokenizerFast, kept: np.ndarray
) -> PreTrainedTokenizerFast:
    """The same tokenizer with the pieces `kept` alone, numbered anew in their old order."""
    numbers = {int(old): new for new, old in enumerate(kept)}
    document = json.loads(tokenizer.backend_tokenizer.to_str())
    words = document["model"]["vocab"]
    document["model"]["vocab"] = {
        piece: numbers[old] for piece, old in words.items() if old in numbers
    }
    for token in document["added_tokens"]:
        token["id"] = numbers[token["id"]]
    _renumber_special(document["post_processor"] or {}, numbers)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        tokenizer.save_pretrained(folder)
        for path in folder.glob("vocab*"):
            path.unlink()
        write_atomic(folder / "tokenizer.json", json.dumps(document, ensure_ascii=False))
        smaller = load_tokenizer(folder)
    before = {number: piece for piece, number in tokenizer.get_vocab().items()}
    if smaller.get_vocab() != {before[old]: new for old, new in numbers.items()}:
        raise CheckFailed(
            "the trimmed tokenizer is not the one that was cut",
            type(tokenizer).__name__,
            "keep the vocabulary whole",
        )
    return smaller


def _renumber_special(processor: dict[str, Any], numbers: Mapping[int, int]) -> None:
    """The ids that a post-processor of tokenizer.json adds to every text: a template's, or BERT's own."""
    for token in processor.get("special_tokens", {}).values():
        token["ids"] = [numbers[old] for old in token["ids"]]
    for name in ("sep", "cls"):
        if name in processor:
            processor[name] = [processor[name][0], numbers[processor[name][1]]]
    for part in processor.get("processors", []):
        _renumber_special(part, numbers)


def trimmed_model(model: PreTrainedModel, kept: np.ndarray, pad: int) -> PreTrainedModel:
    """A copy whose embedding table holds the rows `kept` alone."""
    copy = deepcopy(model)
    owner, name = word_embedding(copy)
    rows: torch.Tensor = getattr(owner, name).weight.detach()[torch.from_numpy(kept)]
    table = nn.Embedding(len(kept), rows.shape[1], padding_idx=pad)
    table.weight = nn.Parameter(rows.clone())
    setattr(owner, name, table)
    copy.config.vocab_size, copy.config.pad_token_id = len(kept), pad
    return copy


def check_unknowns(
    before: PreTrainedTokenizerFast, after: PreTrainedTokenizerFast, texts: Sequence[str]
) -> None:
    """Raises GateFailed where a text, or an old piece read as a word, holds more unknown words than before."""
    pieces = [piece.removeprefix("##") for piece in before.get_vocab()]
    for some in (pieces, texts):
        for text, old, new in zip(some, _ids(before, some), _ids(after, some), strict=True):
            if (new == after.unk_token_id).sum() > (old == before.unk_token_id).sum():
                raise CheckFailed(
                    "trimming the vocabulary made a word unknown",
                    f"{text[:80]!r}",
                    "keep more pieces",
                )


def _ids(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> Iterable[np.ndarray]:
    """Token ids (T,) of each text, untruncated."""
    for start in range(0, len(texts), BATCH):
        for encoding in tokenizer.backend_tokenizer.encode_batch_fast(
            list(texts[start : start + BATCH])
        ):
            yield np.array(encoding.ids, np.int64)
