"""A table of unchecked rows, and the check of its texts."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kdedge.errors import UsageError
from kdedge.io.delimited import DELIMITERS
from kdedge.io.faults import Faults, shown, text_fault


@dataclass(frozen=True)
class Table:
    """N unchecked rows of a file or data set.

    Attributes:
        origin: The name of the source in messages: a file, or a split of a hub data set.
        columns: The requested columns that exist, N values each; None if a value is missing.
        names: Every column that exists.
        places: N line or row numbers, counted from 1, or N file names.
        unit: The words between origin and place in messages.
        label_names: Label names by index, if the source has them.
    """

    origin: str
    columns: Mapping[str, Sequence[Any]]
    names: tuple[str, ...]
    places: Sequence[int] | Sequence[str]
    unit: str = ":"
    label_names: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.places)

    def where(self, row: int) -> str:
        """Return the place of a row: `train.csv:7`, `train.parquet, row 7`, or its own file."""
        place = self.places[row]
        return place if isinstance(place, str) else f"{self.origin}{self.unit}{place}"

    def column(self, name: str, option: str) -> Sequence[Any]:
        """Return a column. Raises UsageError that names the nearest column and `option`."""
        if name in self.columns:
            return self.columns[name]
        raise missing_column(self.origin, name, self.names, option)


def missing_column(
    origin: str, name: str, names: Sequence[str], option: str | None = None
) -> UsageError:
    """Return the error for a column that no row has.

    It is a UsageError (exit code 2), because the option names a column that the file does not have;
    the rows themselves may be valid. If only some rows lack a column, that is a DataError.

    Args:
        origin: The file or argument.
        name: The column.
        names: The columns that exist.
        option: The option or recipe key that names the column; None if the name is fixed.
    """
    place = f" ({option})" if option else ""
    existing = ", ".join(shown(other) for other in names[:20]) or "none"
    hint = _column_hint(name, names, option)
    return UsageError(f"{origin}: no column {shown(name)}{place}", f"columns: {existing}", hint)


def _column_hint(name: str, names: Sequence[str], option: str | None) -> str:
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if option is None:
        renamed = f"column {shown(near[0])}" if near else "a column"
        return f"rename {renamed} to {shown(name)}"
    if len(names) == 1 and _delimiters_in(names[0]) and option.startswith("data."):
        delimiter = shown(_delimiters_in(names[0])[0])
        return f"the columns may be separated otherwise: set data.delimiter = {delimiter}"
    if near:
        sign = " " if option.startswith("--") else " = "
        return f"did you mean {option}{sign}{shown(near[0])}?"
    return f"set {option} to one of these"


def _delimiters_in(name: str) -> list[str]:
    return [delimiter for delimiter in DELIMITERS if delimiter in name]


def checked_texts(
    table: Table,
    column: str,
    option: str,
    faults: Faults,
    fault_of: Callable[[Any], tuple[str, str] | None] = text_fault,
) -> list[str]:
    """Return the N texts of a column unchanged, and add their faults to `faults`.

    Raises UsageError that names `option` if the column does not exist.
    """
    texts = list(table.column(column, option))
    for row, text in enumerate(texts):
        fault = fault_of(text)
        if fault:
            faults.add(table.where(row), f"column {shown(column)} {fault[0]}", fault[1])
    return texts
