"""Read the argument `texts` of a classifier: one text or pair, or several."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from kdedge.errors import UsageError


@dataclass(frozen=True)
class TextInputs:
    """N texts; `pairs` are N second texts, or None. `single`: the user gave one, not a list."""

    texts: list[str]
    pairs: list[str] | None
    single: bool = False


def read_arguments(texts: Any, *, reads_pairs: bool) -> TextInputs:
    """Read the argument of `Classifier.predict`.

    Args:
        texts: A text or an iterable of texts; for classifiers of pairs a tuple of two texts, or
            an iterable of such tuples.
        reads_pairs: Whether the classifier reads pairs.

    Raises:
        UsageError: If `texts` has another type.
    """
    if reads_pairs:
        return _read_pairs(texts)
    message = "this classifier reads one text at a time"
    hint = 'give "a text", or a list of texts'
    if isinstance(texts, str):
        return TextInputs([texts], None, single=True)
    items = read_list(texts, message, hint)
    for row, item in enumerate(items):
        if not isinstance(item, str):
            raise UsageError(message, f"item {row} is {_described(item)}", hint)
    return TextInputs(items, None)


def _read_pairs(texts: Any) -> TextInputs:
    message = "this classifier reads two texts at a time"
    hint = 'give ("first text", "second text"), or a list of such tuples'
    if isinstance(texts, tuple) and _is_pair(texts):
        return TextInputs([texts[0]], [texts[1]], single=True)
    items = read_list(texts, message, hint)
    for row, item in enumerate(items):
        if not _is_pair(item):
            raise UsageError(message, f"item {row} is {_described(item)}", hint)
    return TextInputs([item[0] for item in items], [item[1] for item in items])


def read_list(texts: Any, message: str, hint: str) -> list[Any]:
    """Return the items of an iterable, such as a list, a generator or a column.

    Raises:
        UsageError: If iterating would give characters, keys or column names, or an arbitrary
            order.
    """
    check_iterable(texts, message, hint)
    return list(texts)


def check_iterable(texts: Any, message: str, hint: str) -> None:
    """Raise UsageError if iterating gives characters, keys, column names or an arbitrary order."""
    no_list = isinstance(texts, str | bytes | Mapping | AbstractSet) or hasattr(texts, "columns")
    if no_list or not isinstance(texts, Iterable):
        raise UsageError(message, f"the texts are {_described(texts)}", hint)


def _is_pair(item: Any) -> bool:
    is_two = isinstance(item, tuple | list) and len(item) == 2
    return is_two and isinstance(item[0], str) and isinstance(item[1], str)


def _described(value: Any) -> str:
    return f"{repr(value)[:60]} ({type(value).__name__})"
