"""Find equal texts: between splits they inflate scores, within train they may conflict."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from kdedge.data.shares import text_keys
from kdedge.data.task import Split
from kdedge.errors import DataError
from kdedge.io.faults import shown
from kdedge.io.table import Table

Overlap = Literal["error", "drop", "allow"]


@dataclass(frozen=True)
class Part:
    """The examples of one split, and where they come from.

    Attributes:
        role: train, validation or test.
        split: The examples.
        table: The table that they were read from.
        source: All examples of that table.
    """

    role: str
    split: Split
    table: Table
    source: Split

    def example(self, key: str) -> str:
        """Return place and text of the first example with this normalised text."""
        row = text_keys(self.source).index(key)
        return f"{self.table.where(row)} ({shown(self.source.texts[row])})"


def resolve_overlap(part: Part, others: list[Part], rule: Overlap) -> tuple[Part, list[str]]:
    """Apply data.overlap to the texts that `part` shares with `others`.

    Returns:
        The part, without the shared texts if the rule is "drop", and a note for each other part.

    Raises:
        DataError: If the rule is "error"; gives the count and one example.
    """
    keys = text_keys(part.split)
    notes: list[str] = []
    dropped: set[str] = set()
    for other in others:
        shared_keys = set(text_keys(other.split)) & set(keys)
        if not shared_keys:
            continue
        count = sum(key in shared_keys for key in keys)
        fact = f"{count} of {len(keys)} {part.role} examples also stand in {other.role}"
        if rule == "error":
            first = next(key for key in keys if key in shared_keys)
            raise _overlap_error(fact, part, other, first)
        if rule == "drop":
            dropped |= shared_keys
            notes.append(f"{fact}: dropped from {part.role}.")
        else:
            notes.append(f"{fact}: allowed by data.overlap.")
    if not dropped:
        return part, notes
    remaining = [row for row, key in enumerate(keys) if key not in dropped]
    return replace(part, split=part.split.take(remaining)), notes


def _overlap_error(fact: str, part: Part, other: Part, key: str) -> DataError:
    return DataError(
        f"{fact}, apart from letter case and white space",
        f"{part.example(key)} and {other.example(key)}",
        f'data.overlap = "drop" removes them from {part.role}; data.overlap = "allow" keeps them',
    )


def conflict_note(part: Part) -> list[str]:
    """Return a note if equal texts have different labels; none for a regression's scores."""
    labels = part.split.labels
    if labels.dtype == np.float32 and labels.ndim == 1:
        return []
    labels_of_text: dict[str, set[bytes]] = {}
    for key, label in zip(text_keys(part.split), labels, strict=True):
        labels_of_text.setdefault(key, set()).add(label.tobytes())
    conflicts = [key for key, different in labels_of_text.items() if len(different) > 1]
    if not conflicts:
        return []
    texts = "1 text has" if len(conflicts) == 1 else f"{len(conflicts)} texts have"
    return [f"{texts} different labels in {part.role}, such as {part.example(conflicts[0])}."]
