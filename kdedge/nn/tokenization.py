"""Load a tokenizer and tokenize texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer
from transformers import AutoTokenizer, BatchEncoding, PreTrainedTokenizerFast

from kdedge.errors import MachineError, UsageError, first_line
from kdedge.io.paths import loadable_name
from kdedge.nn.batching import Encoded
from kdedge.nn.ragged import RaggedArray, concatenate_ragged
from kdedge.runtime.text_encoder import CHARACTERS_PER_TOKEN

BLOCK = 8192
"""Texts per call of the tokenizer."""

ENCODING_ATTRIBUTES = {
    "input_ids": "ids",
    "token_type_ids": "type_ids",
    "attention_mask": "attention_mask",
}
"""Name of a model's input -> attribute of an encoding of the library tokenizers."""


def load_tokenizer(name: str | Path, revision: str | None = None) -> PreTrainedTokenizerFast:
    """Load a fast tokenizer and remove its own padding and truncation.

    Args:
        name: A folder, `package:` path or hub id.
        revision: Revision on the hub.

    Raises:
        MachineError: If it cannot be loaded.
        UsageError: If its folder does not exist, or if it is not fast, has no words, or has no
            token for padding.
    """
    path = loadable_name(str(name))
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, revision=revision, use_fast=True)
    except (OSError, ValueError, KeyError) as error:
        raise MachineError(
            "the tokenizer cannot be loaded",
            f"{name}: {first_line(error)}",
            "give a local folder, or allow the hub",
        ) from error
    if not tokenizer.is_fast:
        raise UsageError(
            "only tokenizers with a tokenizer.json run on a device",
            f"{name} is {type(tokenizer).__name__}",
            "convert it to a fast tokenizer first",
        )
    if len(tokenizer) <= len(set(tokenizer.all_special_ids)):
        raise UsageError(
            "the tokenizer has no words",
            f"{name}: its vocabulary has only {len(tokenizer)} special tokens",
            "put tokenizer.json into the folder of the weights",
        )
    if tokenizer.pad_token_id is None:
        # Decoders such as GPT-2 have none. Padding is masked, so any token is good enough.
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if tokenizer.pad_token_id is None:
        raise UsageError(
            "the tokenizer has no token for padding",
            f"{name} has neither a padding, an end-of-text nor an unknown token",
            "add one to its tokenizer_config.json",
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
    """Tokenize N texts and attach columns of N rows.

    Args:
        pairs: Second texts, or None. A pair is truncated from its longer text.
        max_length: Maximum of tokens, special tokens included.
    """
    names = [name for name in ENCODING_ATTRIBUTES if name in tokenizer.model_input_names]
    parts: dict[str, list[RaggedArray]] = {name: [] for name in names}
    with _truncating(tokenizer, max_length) as backend:
        for first, second in blocks_of_texts(texts, pairs, max_length):
            inputs = first if second is None else list(zip(first, second, strict=True))
            # Without offsets and without transformers' own objects, which take a third of the time.
            encodings = backend.encode_batch_fast(inputs)
            for name, part in parts.items():
                rows = [getattr(each, ENCODING_ATTRIBUTES[name]) for each in encodings]
                part.append(RaggedArray.of(rows))
    return Encoded({name: concatenate_ragged(part) for name, part in parts.items()}, columns)


@contextmanager
def _truncating(tokenizer: PreTrainedTokenizerFast, max_length: int) -> Iterator[Tokenizer]:
    """Yield the backend of a tokenizer with the settings of a call that truncates without padding.

    The padding of a user's own tokenizer, or of an earlier call, would stay.
    """
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.encode_special_tokens = tokenizer.split_special_tokens
    backend.enable_truncation(max_length, direction=tokenizer.truncation_side)
    try:
        yield backend
    finally:
        backend.no_truncation()


def tokenized_blocks(
    tokenizer: PreTrainedTokenizerFast,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    max_length: int,
) -> Iterator[BatchEncoding]:
    """Tokenize N texts to the tokens of `encode`, with their offsets; yield blocks of `BLOCK`."""
    for first, second in blocks_of_texts(texts, pairs, max_length):
        tokens = tokenizer(first, second, truncation=True, max_length=max_length, padding=False)
        tokens.pop("overflow_to_sample_mapping", None)
        yield tokens
    tokenizer.backend_tokenizer.no_truncation()


def blocks_of_texts(
    texts: Sequence[str], pairs: Sequence[str] | None, max_length: int
) -> Iterator[tuple[list[str], list[str] | None]]:
    """Yield N texts and their second texts in blocks of `BLOCK`; no texts are one empty block.

    A text is cut where its tokens would be cut anyway.
    """
    characters = max_length * CHARACTERS_PER_TOKEN
    for start in range(0, max(1, len(texts)), BLOCK):
        block = slice(start, start + BLOCK)
        second = None if pairs is None else [text[:characters] for text in pairs[block]]
        yield [text[:characters] for text in texts[block]], second


def replace_mask_token(
    texts: Iterable[str], source: PreTrainedTokenizerFast, target: PreTrainedTokenizerFast
) -> Iterable[str]:
    """Replace `source`'s mask token by `target`'s.

    If `target` has none, it is removed. If both have the same one, or `source` has none, the texts
    are returned as they are.
    """
    old, new = source.mask_token, target.mask_token
    if old is None or old == new:
        return texts
    return (text.replace(old, new or "") for text in texts)
