"""What can be wrong with a row, told with file, line, column, value and remedy."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from kdedge.errors import DataError, UsageError

SHOWN = 10
LONGEST_TEXT = 1_000_000


@dataclass
class Faults:
    """Collects the faults of one file or split; the first ten are told in full."""

    origin: str
    told: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, where: str, fault: str, remedy: str) -> None:
        self.count += 1
        if len(self.told) < SHOWN:
            self.told.append(f"{where}: {fault}; {remedy}")

    def raise_if_any(self) -> None:
        """Raises DataError with up to ten faults and how many there are in all."""
        if not self.count:
            return
        lines = (
            [*self.told, f"... and {self.count - SHOWN} more"] if self.count > SHOWN else self.told
        )
        count = "1 fault" if self.count == 1 else f"{self.count} faults"
        raise DataError(
            f"{self.origin}: {count} in the data",
            "\n         ".join(lines),
            "mend or remove these rows and run again",
        )


def shown(value: Any) -> str:
    """A value short enough for a message, escapes made visible."""
    try:
        text = repr(value[:80] if isinstance(value, str) else value)
    except (ValueError, RecursionError):
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."


@dataclass(frozen=True)
class Table:
    """N rows as they were read, not yet checked.

    origin: what the user would call it: a file, or a split of a hub data set.
    columns: those of the recipe that are there; each holds N values of any type, None where missing.
    names: every column that is there.
    places: N file lines or row numbers (from 1), or N file names.
    label_names: names by index where the source itself has them: hub features, class folders.
    """

    origin: str
    columns: dict[str, Sequence[Any]]
    names: tuple[str, ...]
    places: Sequence[int] | Sequence[str]
    unit: str = ":"
    label_names: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.places)

    def where(self, row: int) -> str:
        """`train.csv:7`, `train.parquet, row 7`, or the file of a text that has one to itself."""
        place = self.places[row]
        return place if isinstance(place, str) else f"{self.origin}{self.unit}{place}"

    def column(self, name: str, asked_by: str) -> Sequence[Any]:
        """The values of a column. Raises UsageError that names the columns there are, the nearest first."""
        if name in self.columns:
            return self.columns[name]
        reject_column(name, asked_by, self.origin, self.names)


def reject_column(name: str, asked_by: str, origin: str, names: Sequence[str]) -> NoReturn:
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    there = ", ".join(shown(n) for n in names[:20]) or "none"
    hint = (
        f"did you mean {asked_by} = {shown(near[0])}?"
        if near
        else f"set {asked_by} to one of these"
    )
    raise UsageError(f"{origin}: no column {shown(name)} ({asked_by})", f"columns {there}", hint)


def text_fault(text: Any) -> tuple[str, str] | None:
    """(what is wrong, remedy) of one text, or None."""
    if text is None:
        return "is missing", "fill it in or remove the row"
    if not isinstance(text, str):
        return f"is not a text but {shown(text)} ({type(text).__name__})", "write it as a string"
    if not text or text.isspace():
        return f"is blank ({shown(text)})", "fill it in or remove the row"
    if len(text) > LONGEST_TEXT:
        return (
            f"has {len(text):,} characters, more than {LONGEST_TEXT:,} ({shown(text[:30])})",
            "cut it, or look for a missing quote or line end",
        )
    if "\0" in text:
        return (
            f"holds a NUL character ({shown(text)})",
            "remove it; a whole file of them is often utf-16: set data.encoding",
        )
    return _surrogate_fault(text)


def _surrogate_fault(text: str) -> tuple[str, str] | None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return (
            f"holds half a surrogate pair at character {error.start} ({shown(text)})",
            "remove it or write the whole character",
        )
    return None


def checked_texts(table: Table, column: str, asked_by: str, faults: Faults) -> list[str]:
    """N texts as they stand; what is wrong with them goes to `faults`."""
    values = table.column(column, asked_by)
    for row, text in enumerate(values):
        fault = text_fault(text)
        if fault:
            faults.add(table.where(row), f"column {shown(column)} {fault[0]}", fault[1])
    return list(values)
