"""Load a tokenizer and tokenize texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from kdedge.errors import MachineError, UsageError, first_line
from kdedge.io.paths import resolve_model_path
from kdedge.nn.batching import (
    Encoded,
)
from kdedge.nn.ragged import RaggedArray, concatenate_ragged

BLOCK = 8192
"""Texts that are tokenized at once."""


CHARACTERS_PER_TOKEN = 32
"""The tokenizer reads a whole text before it truncates: texts are cut to this many characters a token first."""


def load_tokenizer(name: str | Path, revision: str | None = None) -> PreTrainedTokenizerFast:
    """A fast tokenizer from a folder, `package:` place or hub id, with any baked-in padding and truncation undone."""
    place = resolve_model_path(str(name))
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(place or name), revision=revision, use_fast=True
        )
    except (OSError, ValueError, KeyError) as error:
        raise MachineError(
            "the tokenizer cannot be loaded",
            f"{name}: {first_line(error)}",
            "give a local folder, or allow the hub",
        ) from error
    if not tokenizer.is_fast:
        raise UsageError(
            "only tokenizers with a tokenizer.json can go to a device",
            f"{name} is {type(tokenizer).__name__}",
            "convert it to a fast tokenizer first",
        )
    if len(tokenizer) <= len(set(tokenizer.all_special_ids)):
        raise UsageError(
            "the tokenizer knows no words",
            f"{name}: a vocabulary of {len(tokenizer)} special tokens",
            "put tokenizer.json beside the weights",
        )
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    return tokenizer


def encode(
    tokenizer: PreTrainedTokenizerFast,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    max_length: int,
    **columns: np.ndarray,
) -> Encoded:
    """Tokenize N texts (and their second texts), truncating to `max_length` tokens, longest text first."""
    budget = max_length * CHARACTERS_PER_TOKEN

    def tokenized(start: int) -> Mapping[str, list[list[int]]]:
        return tokenizer(  # type: ignore[no-any-return]
            [text[:budget] for text in texts[start : start + BLOCK]],
            None if pairs is None else [text[:budget] for text in pairs[start : start + BLOCK]],
            truncation=True,
            max_length=max_length,
            padding=False,
        )

    blocks = [
        {name: RaggedArray.of(rows) for name, rows in tokenized(start).items()}
        for start in range(0, max(1, len(texts)), BLOCK)
    ]
    tokenizer.backend_tokenizer.no_truncation()
    return Encoded(
        {
            name: concatenate_ragged([block[name] for block in blocks])
            for name in blocks[0]
            if name != "overflow_to_sample_mapping"
        },
        columns,
    )
