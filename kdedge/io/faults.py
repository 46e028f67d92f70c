"""Collect faults in the rows of a file, and describe what is wrong with a text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from kdedge.errors import DataError
from kdedge.wording import counted, shortened

OnFault = Callable[[str, str, str], None]
"""Receives where a fault is, what it is, and its remedy."""

LISTED_FAULTS = 10
MAX_CHARACTERS = 1_000_000


@dataclass
class Faults:
    """The faults of one file or split; the error lists the first ten."""

    origin: str
    listed: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, where: str, fault: str, remedy: str) -> None:
        self.count += 1
        if self.count <= LISTED_FAULTS:
            self.listed.append(f"{where}: {fault}; {remedy}")

    def raise_if_any(self) -> None:
        """Raise DataError with the first faults and their count, if there are any."""
        if not self.count:
            return
        lines = list(self.listed)
        if self.count > LISTED_FAULTS:
            lines.append(f"... and {self.count - LISTED_FAULTS} more")
        count = counted(self.count, "fault")
        raise DataError(
            f"{self.origin}: {count} in the data",
            "\n".join(lines),
            "correct or remove these rows",
        )


def raise_fault(where: str, fault: str, remedy: str) -> NoReturn:
    """Raise DataError for a single fault, for readers that stream."""
    raise DataError(f"{where}: {fault}", hint=remedy)


def shown(value: Any) -> str:
    """Return a value with visible escapes, short enough for a message."""
    try:
        text = repr(value[:80] if isinstance(value, str) else value)
    except (ValueError, RecursionError):
        text = f"a {type(value).__name__}"
    return shortened(text, 60)


def string_fault(value: Any) -> tuple[str, str] | None:
    """Return (fault, remedy) if a value is not a string that UTF-8 can hold."""
    if value is None:
        return "is missing", "fill it in or remove the row"
    if not isinstance(value, str):
        return f"is not a text but {shown(value)} ({type(value).__name__})", "write it as a string"
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        return (
            f"holds half a surrogate pair at character {error.start} ({shown(value)})",
            "remove it or write the whole character",
        )
    return None


def text_fault(value: Any) -> tuple[str, str] | None:
    """Return (fault, remedy) if a value cannot be a training text, else None."""
    fault = string_fault(value)
    if fault:
        return fault
    if not value or value.isspace():
        return f"is blank ({shown(value)})", "fill it in or remove the row"
    if len(value) > MAX_CHARACTERS:
        return (
            f"has {len(value):,} characters, more than {MAX_CHARACTERS:,} ({shown(value[:30])})",
            "shorten it, or look for a missing quote or line end",
        )
    if "\0" in value:
        return (
            f"holds a NUL character ({shown(value)})",
            "remove it; if the whole file has them, it may be utf-16: set data.encoding",
        )
    return None
