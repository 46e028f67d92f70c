"""Labels of a multilabel text as a list of C zeros and ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def are_multi_hot(values: Sequence[Any], width: int) -> bool:
    """Return whether all cells are multi-hot lists of `width` labels.

    Two or more labels are needed: [0] and [1] may be indices, too.
    """
    return width > 1 and all(is_multi_hot(value, width) for value in values)


def is_multi_hot(value: Any, width: int) -> bool:
    """Return whether a cell is a list of `width` zeros and ones."""
    if not isinstance(value, list | tuple) or len(value) != width:
        return False
    return all(isinstance(item, int | float) and item in (0, 1) for item in value)
