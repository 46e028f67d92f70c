"""Equal texts: between splits they inflate results, within train they contradict each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from kdedge.data.check import Table, shown
from kdedge.data.shares import text_keys
from kdedge.data.task import Split
from kdedge.errors import DataError

Overlap = Literal["error", "drop", "allow"]


@dataclass(frozen=True)
class Part:
    """A role (train, validation, test), its examples, and the table they came from."""

    role: str
    split: Split
    table: Table
    source: Split

    def example(self, key: str) -> str:
        """Where the first example with this normalised text stands, and its text."""
        row = text_keys(self.source).index(key)
        return f"{self.table.where(row)} ({shown(self.source.texts[row])})"


def without_overlap(part: Part, others: list[Part], rule: Overlap) -> tuple[Part, list[str]]:
    """`part` without the texts of `others` where the rule says so, and a note for each other part it shares texts with.

    Raises DataError under `reject`, with the count and one example.
    """
    keys = text_keys(part.split)
    notes: list[str] = []
    dropped: set[str] = set()
    for other in others:
        shared_keys = set(text_keys(other.split)) & set(keys)
        if not shared_keys:
            continue
        found = sum(key in shared_keys for key in keys)
        fact = f"{found} of {len(keys)} {part.role} examples also stand in {other.role}"
        if rule == "error":
            raise _rejection(fact, part, other, next(key for key in keys if key in shared_keys))
        notes.append(
            f"{fact}: {'dropped from ' + part.role if rule == 'drop' else 'allowed by data.overlap'}."
        )
        dropped |= shared_keys if rule == "drop" else set()
    kept = [i for i, key in enumerate(keys) if key not in dropped]
    return Part(
        part.role, part.split.take(kept) if dropped else part.split, part.table, part.source
    ), notes


def _rejection(fact: str, part: Part, other: Part, key: str) -> DataError:
    example = f"{part.example(key)} and {other.example(key)}"
    step = f'data.overlap = "drop" removes them from {part.role}; data.overlap = "allow" keeps them'
    return DataError(f"{fact}, letter case and white space aside", example, step)


def conflict_note(part: Part) -> list[str]:
    """A note when equal texts of one split have different labels; scores of a regression may well differ."""
    labels = part.split.labels
    if labels.dtype == np.float32 and labels.ndim == 1:
        return []
    answers: dict[str, set[bytes]] = {}
    for key, label in zip(text_keys(part.split), labels, strict=True):
        answers.setdefault(key, set()).add(label.tobytes())
    conflicts = [key for key, given in answers.items() if len(given) > 1]
    if not conflicts:
        return []
    texts = "1 text stands" if len(conflicts) == 1 else f"{len(conflicts)} texts stand"
    return [f"{texts} in {part.role} with different labels, such as {part.example(conflicts[0])}."]
