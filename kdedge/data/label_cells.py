"""Read single values of a label column."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

from kdedge.runtime.spec import BETWEEN_LABELS, Kind


def as_number(value: Any) -> float | None:
    """Return the number that a cell holds or writes; None if there is none.

    Example:
        >>> as_number("3.75"), as_number("good"), as_number("1_000")
        (3.75, None, None)
    """
    # Parquet files of databases hold decimals.
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return None
    if isinstance(value, str) and "_" in value:  # float() reads "1_000", which no file means
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def is_missing(value: Any) -> bool:
    """Return whether a cell is None, empty, blank or "nan", the missing value of a table."""
    if isinstance(value, str):
        return value.strip().lower() in ("", "nan")
    return value is None or (isinstance(value, float) and math.isnan(value))


def is_index(text: str) -> bool:
    """Return whether a string writes an index: digits without a leading zero."""
    return text.isascii() and text.isdigit() and len(text) < 10 and text == str(int(text))


def labels_of_cell(kind: Kind, value: Any) -> list[Any]:
    """Return the list of labels in one cell; whole floats and decimals become integers.

    Tables write 1.0 for 1 if a column of whole numbers has gaps.

    Example:
        >>> labels_of_cell("multilabel", "price | service"), labels_of_cell("classification", 1.0)
        (['price', 'service'], [1])
    """
    if kind != "multilabel":
        return [_whole(value)]
    if isinstance(value, str):
        parts = [part.strip() for part in value.split(BETWEEN_LABELS)]
        return [part for part in parts if part]
    return [_whole(item) for item in value] if isinstance(value, list | tuple) else [_whole(value)]


def _whole(value: Any) -> Any:
    """Return a whole float or decimal as an int, and any other value as it is."""
    if isinstance(value, float | Decimal) and math.isfinite(value) and value % 1 == 0:
        return int(value)
    return value
