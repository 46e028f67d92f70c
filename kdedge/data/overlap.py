"""Find equal and nearly equal texts in different splits, which inflate scores."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from kdedge.data.near_copies import NearCopy, find_near_copies
from kdedge.data.shares import text_keys
from kdedge.data.task import Overlap, Split
from kdedge.errors import DataError
from kdedge.io.faults import shown
from kdedge.io.table import Table

OverlapRule = Literal["error", "drop", "allow"]

LARGEST_COPIES = 0.01
"""Share of a split that may be copies apart from punctuation. Of 19 public data sets, none has
more than 0.6 %."""

LARGEST_SIMILAR = 0.25
"""Share of a split that may be similar. Intents are short and often alike: CLINC150, CoLA and
banking77 have 14 to 19 %."""

COPIES = "only punctuation or accents differ"
SIMILAR = "one word differs, or little of a long text"


class OverlapError(DataError):
    """Two splits share texts.

    Args:
        message: How many texts, and which splits.
        detail: One of the texts, and its places.
        role: The split from which data.overlap = "drop" removes them.
    """

    def __init__(self, message: str, detail: str, role: str) -> None:
        self.role = role
        hint = f'data.overlap = "drop" removes them from {role}; data.overlap = "allow" keeps them'
        super().__init__(message, detail, hint)


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

    def place(self, key: str) -> str:
        """Return the place (file and line) of the first example with this normalised text."""
        return self.table.where(text_keys(self.source).index(key))

    def example(self, key: str) -> str:
        """Return place and text of the first example with this normalised text."""
        row = text_keys(self.source).index(key)
        return f"{self.place(key)} ({shown(self.source.texts[row])})"

    def without(self, rows: set[int]) -> Part:
        """Return the part without some rows."""
        if not rows:
            return self
        remaining = [row for row in range(len(self.split)) if row not in rows]
        return replace(self, split=self.split.take(remaining))


@dataclass
class Resolution:
    """A part after data.overlap was applied, with notes and counts.

    Attributes:
        part: The part, without the texts that were dropped.
        notes: One sentence for each kind of shared texts.
        overlaps: The counts, one entry for each other part.
    """

    part: Part
    notes: list[str]
    overlaps: list[Overlap]


def resolve_overlap(part: Part, others: list[Part], rule: OverlapRule) -> Resolution:
    """Apply data.overlap to the texts that `part` shares with `others`.

    Equal texts are an error, are dropped from `part`, or are allowed, as the rule says. The rule
    applies to near copies above a share of the other part, unless kdedge itself drew the parts from
    one file. Other near copies are only noted: genuine data sets have some.

    Raises:
        OverlapError: If the rule is "error"; gives counts and one example.
    """
    result = Resolution(part, [], [])
    dropped: set[int] = set()
    keys = text_keys(part.split)
    for other in others:
        other_keys = text_keys(other.split)
        equal = _equal_rows(keys, other_keys)
        facts = [_equal_fact(part, other, equal)]
        found = list(find_near_copies(part.split, other.split))
        near = [copy for copy in found if keys[copy.row] != other_keys[copy.other]]
        copies = [copy for copy in near if copy.is_copy]
        similar = [copy for copy in near if not copy.is_copy]
        facts.append(_near_fact(part, other, copies, COPIES, LARGEST_COPIES))
        facts.append(_near_fact(part, other, similar, SIMILAR, LARGEST_SIMILAR))
        for fact in facts:
            result.notes += fact.resolve(rule, part.role)
            dropped |= fact.dropped(rule)
        overlap = Overlap(
            split=part.role,
            other=other.role,
            equal=len(equal),
            copies=len(_others(copies)),
            similar=len(_others(similar)),
            examples=len(other.split),
        )
        result.overlaps.append(overlap)
    result.part = part.without(dropped)
    return result


@dataclass(frozen=True)
class _Fact:
    """Equal or nearly equal texts of two parts.

    Attributes:
        text: A sentence with their number.
        places: File and line of two near copies, for a note; empty for equal texts, which are never
            only noted.
        example: Two places and their texts, for an error; empty if there are no such texts.
        rows: Rows of the compared part.
        is_error: Whether the rule applies to them; else they are only noted.
    """

    text: str
    places: str
    example: str
    rows: frozenset[int]
    is_error: bool

    def dropped(self, rule: OverlapRule) -> frozenset[int]:
        return self.rows if rule == "drop" and self.is_error else frozenset()

    def resolve(self, rule: OverlapRule, role: str) -> list[str]:
        """Return a note, or [] without texts. Raises OverlapError if the rule rejects them."""
        if not self.rows:
            return []
        if rule == "error" and self.is_error:
            raise OverlapError(self.text, self.example, role)
        if self.dropped(rule):
            return [f"{self.text}: dropped from {role}."]
        if rule == "allow" and self.is_error:
            return [f"{self.text}: allowed by data.overlap."]
        return [f"{self.text}, such as {self.places}."]


def _equal_rows(keys: list[str], other_keys: list[str]) -> frozenset[int]:
    """Return the rows whose text also occurs in the other part."""
    known = set(other_keys)
    return frozenset(row for row, key in enumerate(keys) if key in known)


def _equal_fact(part: Part, other: Part, rows: frozenset[int]) -> _Fact:
    text = f"{len(rows)} of {len(part.split)} {part.role} examples also stand in {other.role}"
    example = ""
    if rows:
        key = text_keys(part.split)[min(rows)]
        example = (
            f"{part.example(key)} and {other.example(key)}; letter case and white space "
            "do not count"
        )
    return _Fact(text, "", example, rows, is_error=bool(rows))


def _near_fact(
    part: Part, other: Part, copies: list[NearCopy], kind: str, largest_share: float
) -> _Fact:
    """Describe near copies of one kind; more than `largest_share` of `other` are an error."""
    rows = frozenset(copy.row for copy in copies)
    count, examples = len(_others(copies)), len(other.split)
    text = f"{count} of {examples} {other.role} examples are near copies of {part.role} examples"
    places, example = "", ""
    if copies:
        first = text_keys(part.split)[copies[0].row]
        second = text_keys(other.split)[copies[0].other]
        # The folders of both places would make the note several lines long.
        places = f"{Path(part.place(first)).name} and {Path(other.place(second)).name}"
        example = f"{part.example(first)} and {other.example(second)}"
    is_drawn = part.table is other.table
    is_error = count > largest_share * examples and not is_drawn
    return _Fact(f"{text}: {kind}", places, example, rows, is_error)


def _others(copies: list[NearCopy]) -> set[int]:
    """Return the rows of the other part that have a near copy."""
    return {copy.other for copy in copies}


def conflict_note(part: Part) -> list[str]:
    """Return a note if equal texts have different labels; [] for regression tasks."""
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
