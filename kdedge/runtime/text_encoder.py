"""Turn texts into the graph's inputs, with the bundle's tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import TypeVar

import numpy as np
from tokenizers import Tokenizer

from kdedge.errors import DataError, IntegrityError, UsageError
from kdedge.runtime.bundle import Bundle
from kdedge.runtime.cleaning import Cleaner
from kdedge.runtime.tokenizer_check import check_tokenizer

CHARACTERS_PER_TOKEN = 32
"""A tokenizer reads a whole text before it truncates it. So each text is first cut to this number
of characters per token, in training too."""

TokenRow = dict[str, list[int]]
"""Name of an input -> its values for one text, without padding."""

Result = TypeVar("Result")
Length = TypeVar("Length", int, tuple[int, int])


class TextEncoder:
    """Tokenizes and pads texts; may be used by several threads at once."""

    def __init__(self, bundle: Bundle) -> None:
        self.manifest = bundle.manifest
        self._cleaner = Cleaner(bundle.manifest.clean)
        self._tokenizer = call_tokenizer(lambda: self._load_tokenizer(bundle))

    @staticmethod
    def _load_tokenizer(bundle: Bundle) -> Tokenizer:
        content = bundle.contents["tokenizer.json"]
        check_tokenizer(content)
        tokenizer = Tokenizer.from_buffer(content)
        tokenizer.no_padding()
        tokenizer.enable_truncation(bundle.manifest.max_length)
        return tokenizer

    def tokenize(
        self, texts: Sequence[str], pairs: Sequence[str] | None
    ) -> tuple[list[TokenRow], list[bool]]:
        """Return the tokens of each text, and whether the text was truncated."""
        self._check_columns(texts, pairs)
        first, first_cut = self._cut(texts)
        inputs: list[str] | list[tuple[str, str]]
        if pairs is None:
            inputs, cut = first, first_cut
        else:
            second, second_cut = self._cut(pairs)
            inputs = list(zip(first, second, strict=True))
            cut = [a or b for a, b in zip(first_cut, second_cut, strict=True)]
        encodings = call_tokenizer(lambda: self._tokenizer.encode_batch(inputs))
        rows: list[TokenRow] = []
        truncated = []
        for encoding, was_cut in zip(encodings, cut, strict=True):
            rows.append(
                {
                    "input_ids": encoding.ids,
                    "attention_mask": encoding.attention_mask,
                    "token_type_ids": encoding.type_ids,
                }
            )
            truncated.append(was_cut or bool(encoding.overflowing))
        return rows, truncated

    def encode_one(self, text: str, pair: str | None) -> tuple[dict[str, np.ndarray], bool]:
        """Tokenize one text or pair; faster than `tokenize` and `pad`.

        Returns:
            Name of an input -> int64 (1, T), and whether the text was truncated.
        """
        self._check_columns([text], None if pair is None else [pair])
        first, was_cut = self._prepare(text)
        if pair is None:
            encoding = call_tokenizer(lambda: self._tokenizer.encode(first))
        else:
            second, second_cut = self._prepare(pair)
            was_cut = was_cut or second_cut
            encoding = call_tokenizer(lambda: self._tokenizer.encode(first, second))
        values = {
            "input_ids": encoding.ids,
            "attention_mask": encoding.attention_mask,
            "token_type_ids": encoding.type_ids,
        }
        inputs = {}
        for name in self.manifest.inputs:
            inputs[name] = np.array([values[name]], dtype=np.int64)
        return inputs, was_cut or bool(encoding.overflowing)

    def pad(self, rows: list[TokenRow]) -> dict[str, np.ndarray]:
        """Pad rows on the right to the longest: name of an input -> int64 (B, T)."""
        longest = max((len(row["input_ids"]) for row in rows), default=1)
        batch = {}
        for name in self.manifest.inputs:
            array = np.zeros((len(rows), longest), dtype=np.int64)
            if name == "input_ids":
                array[:] = self.manifest.pad_token_id
            for i, row in enumerate(rows):
                array[i, : len(row[name])] = row[name]
            batch[name] = array
        return batch

    def _check_columns(self, texts: Sequence[str], pairs: Sequence[str] | None) -> None:
        if isinstance(texts, str) or isinstance(pairs, str):
            raise UsageError("this needs a list of texts", "one string", "put it into a list")
        if self.manifest.spec.pair and pairs is None:
            raise UsageError(
                "this classifier reads two texts at a time", "one text", "give both texts"
            )
        if pairs is not None and not self.manifest.spec.pair:
            raise UsageError(
                "this classifier reads one text at a time", "two texts", "leave the second one out"
            )
        if pairs is not None and len(pairs) != len(texts):
            raise UsageError(
                "each text needs its second text",
                f"{len(texts)} texts, {len(pairs)} second texts",
                "give two lists of equal length",
            )

    def _cut(self, texts: Sequence[str]) -> tuple[list[str], list[bool]]:
        """Clean and cut each text; also return which texts were cut."""
        prepared = [self._prepare(text) for text in texts]
        return [text for text, _ in prepared], [was_cut for _, was_cut in prepared]

    def _prepare(self, text: str) -> tuple[str, bool]:
        """Clean a text and cut it to a number of characters; also return whether it was cut.

        Raises:
            DataError: If it is not a valid string.
        """
        _check_type(text)
        if self._cleaner.steps:
            text = self._cleaner.clean(text)
        limit = self.manifest.max_length * CHARACTERS_PER_TOKEN
        cut = text[:limit]
        _check_characters(cut)
        return cut, len(text) > limit


def lengths_of(row: TokenRow) -> tuple[int, int]:
    """Return the number of tokens of a text or pair, and that of its second text."""
    return len(row["input_ids"]), sum(row["token_type_ids"])


def length_batches(
    lengths: Sequence[Length], size: int, *, equal_lengths: bool
) -> Iterator[list[int]]:
    """Yield the indices of N texts in batches of at most `size`, shortest texts first.

    Args:
        lengths: Number of tokens of each text, or what `lengths_of` returns.
        equal_lengths: Whether only texts of the same length may share a batch.

    Raises:
        UsageError: If `size` is no positive integer.
    """
    check_batch_size(size)
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    if equal_lengths:
        groups = [list(group) for _, group in groupby(order, key=lengths.__getitem__)]
    else:
        groups = [order]
    for group in groups:
        for start in range(0, len(group), size):
            yield group[start : start + size]


def check_batch_size(size: int) -> None:
    """Raise UsageError if a batch size is no positive integer."""
    if not isinstance(size, int) or size < 1:
        raise UsageError("batch_size must be at least 1", repr(size), "leave it out, or give 32")


def call_tokenizer(function: Callable[[], Result]) -> Result:
    """Call `tokenizers`. A hostile tokenizer.json raises PanicException, which is no Exception."""
    try:
        return function()
    except (KeyboardInterrupt, SystemExit, MemoryError, IntegrityError):
        raise
    except BaseException as error:
        raise IntegrityError(
            "tokenizer.json of the bundle cannot be used", str(error)[:200], "export again"
        ) from None


def _check_type(text: str) -> None:
    if not isinstance(text, str):
        raise DataError("a text must be a string", type(text).__name__, "convert it first")


def _check_characters(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            "a text contains half a character (a lone surrogate)",
            f"at character {error.start}",
            "decode the text properly, or replace the character",
        ) from error
