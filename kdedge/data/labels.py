"""Label names and label arrays from whatever a column holds.

A whole number is an index, a string is a name. A string of digits, the only way a csv can write an index, is a name
where such a name is known or no names are known, and an index where the known names have no digits-only name among them.

A multilabel cell lists names or indices; csv and tsv write them with "|" between. Where every list of train has one length
(C, at least 2) and holds only 0 and 1, all cells are read as C switches instead: as indices such lists would name labels twice.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kdedge.data.check import Faults, Table, shown, text_fault
from kdedge.data.read import read_text
from kdedge.errors import UsageError
from kdedge.runtime.spec import BETWEEN_LABELS, Kind

Names = tuple[str, ...]


def known_names(
    kind: Kind, labels: list[str] | str | None, folder: Path | None, train: Table
) -> Names | None:
    """The names said by task.labels, else by the source itself, else by labels.json beside its files; else None.

    Raises UsageError where the names are none.
    """
    if kind == "regression":
        if labels is not None:
            raise UsageError(
                "a regression has no labels",
                f"task.labels = {shown(labels)}",
                "leave task.labels out, or set task.kind",
            )
        return ("score",)
    if isinstance(labels, list):
        return checked_names(kind, labels, "task.labels")
    if labels is not None:
        return checked_names(kind, _names_in(Path(labels)), labels)
    if train.label_names is not None:
        return checked_names(kind, list(train.label_names), train.origin)
    beside = folder / "labels.json" if folder else None
    return (
        checked_names(kind, _names_in(beside), str(beside)) if beside and beside.is_file() else None
    )


def checked_names(kind: Kind, names: Any, origin: str) -> Names:
    """Names that differ and can be shown. Raises UsageError."""
    least = 2 if kind == "classification" else 1
    bad = [name for name in names if text_fault(name) is not None]
    twice = [] if bad else sorted({name for name in names if names.count(name) > 1})
    if bad or twice:
        raise UsageError(
            f"{origin}: label names are strings that differ",
            shown((bad or twice)[0]),
            "give every label a name of its own",
        )
    if len(names) < least:
        raise UsageError(
            f"{origin}: a {kind} has at least {least} labels",
            f"{len(names)}",
            "name them all, in the order of their indices",
        )
    return tuple(names)


def _names_in(path: Path) -> list[Any]:
    """A JSON list of names, or an object from index to name."""
    try:
        document = json.loads(read_text(path, "utf-8"))
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{path}: not JSON",
            str(error),
            'write a list of names, such as ["negative", "positive"]',
        ) from error
    if isinstance(document, list):
        return document
    if isinstance(document, dict) and set(document) == {str(i) for i in range(len(document))}:
        return [document[str(i)] for i in range(len(document))]
    raise UsageError(
        f"{path}: not a list of label names",
        shown(document),
        "write a list, or an object from index 0, 1, 2 ... to name",
    )


def are_switches(values: Sequence[Any], names: Names | None) -> bool:
    """Whether a multilabel column holds lists of C zeros and ones (integers, booleans or floats) rather than lists of labels."""
    first = values[0] if len(values) else None
    width = len(names) if names else len(first) if isinstance(first, list | tuple) else 0
    return width > 1 and all(_is_switches(value, width) for value in values)


def _is_switches(value: Any, width: int) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == width
        and all(isinstance(x, int | float) and x in (0, 1) for x in value)
    )


def names_of_train(kind: Kind, table: Table, values: Sequence[Any], faults: Faults) -> Names:
    """Names for a train split whose labels have none: its strings sorted (digits as numbers), or "0", "1" ... up to its highest index.

    A column that mixes strings and numbers is a fault.
    """
    items = [(row, item) for row, value in enumerate(values) for item in _items(kind, value)]
    first = next((item for _, item in items if isinstance(item, str | int)), None)
    for row, item in items:
        if (
            first is not None
            and isinstance(item, str | int)
            and isinstance(item, str) != isinstance(first, str)
        ):
            faults.add(
                table.where(row),
                f"label {shown(item)} among labels such as {shown(first)}",
                "write all labels as names or all as indices",
            )
    faults.raise_if_any()
    if isinstance(first, str):
        found = {item for _, item in items if isinstance(item, str) and _is_name(item)}
        if len(found) > max(1000, len(values) // 2):
            raise UsageError(
                f"{table.origin}: the label column holds {len(found)} different strings",
                shown(first),
                "set data.label to the column of labels",
            )
        return tuple(
            sorted(
                found, key=lambda name: (0, int(name), name) if _is_index(name) else (1, 0, name)
            )
        )
    indices = [int(item) for _, item in items if isinstance(item, int)]
    # A stray huge index must not make a huge model: there are never more classes than examples.
    return tuple(str(i) for i in range(min(max(indices, default=-1) + 1, max(len(values), 2))))


def _is_name(text: str) -> bool:
    """Whether a string of train may name a label by itself; "nan" is how a table writes a missing one."""
    return text == text.strip() and text.lower() != "nan" and text_fault(text) is None


def _items(kind: Kind, value: Any) -> list[Any]:
    """The single labels in one cell."""
    if kind != "multilabel":
        return [value]
    if isinstance(value, str):
        return [part.strip() for part in value.split(BETWEEN_LABELS) if part.strip()]
    return list(value) if isinstance(value, list | tuple) else [value]


def _is_index(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10 and text == str(int(text))


def label_array(
    kind: Kind,
    names: Names,
    table: Table,
    values: Sequence[Any],
    faults: Faults,
    *,
    switches: bool = False,
) -> np.ndarray:
    """Labels as `kdedge.data.task.Split` holds them; what is wrong with a row goes to `faults`.

    switches: read multilabel cells as C zeros and ones, as `are_switches` found them in train.
    """
    if kind == "regression":
        return _scores(table, values, faults)
    read = _LabelReader(names, table, faults)
    if kind == "classification":
        return np.array(
            [read.index(value, row) for row, value in enumerate(values)], dtype=np.int64
        )
    hot = np.zeros((len(values), max(len(names), 1)), dtype=np.float32)
    for row, value in enumerate(values):
        fault = _list_fault(value, len(names), switches)
        if fault:
            faults.add(
                table.where(row),
                f"{fault} ({shown(value)})",
                "list each label once, or write one 0 or 1 for each label in every row",
            )
        elif switches:
            hot[row] = value
        else:
            hot[row, [read.index(item, row) for item in _items(kind, value)]] = 1
    return hot


def _list_fault(value: Any, width: int, switches: bool) -> str | None:
    """What is wrong with a multilabel cell as a whole, or None."""
    if switches:
        return (
            None
            if _is_switches(value, width)
            else f"the label is not {width} zeros and ones, as in train"
        )
    items = [item for item in _items("multilabel", value) if isinstance(item, str | int)]
    if any(isinstance(item, bool) for item in items):
        return "true and false are no labels"
    return "a label stands twice" if len(set(items)) < len(items) else None


class _LabelReader:
    """Turns single labels into indices."""

    def __init__(self, names: Names, table: Table, faults: Faults) -> None:
        self.names, self.table, self.faults = names, table, faults
        self.places = {name: i for i, name in enumerate(names)}
        if not any(_is_index(name) for name in names):
            self.places |= {str(i): i for i in range(len(names))}

    def index(self, label: Any, row: int) -> int:
        """The class of one label, or 0 after telling the fault."""
        if isinstance(label, str) and label in self.places:
            return self.places[label]
        if isinstance(label, int) and 0 <= label < len(self.names):
            return int(label)
        self.faults.add(self.table.where(row), *_label_fault(label, self.names))
        return 0


def _is_missing(value: Any) -> bool:
    """None, nothing, or the nan of a table, as a number or as csv spells it."""
    return (
        value is None
        or value == ""
        or (isinstance(value, float) and math.isnan(value))
        or (isinstance(value, str) and value.strip().lower() == "nan")
    )


def _label_fault(value: Any, names: Names) -> tuple[str, str]:
    if _is_missing(value):
        return (
            f"the label is missing ({shown(value)})",
            "fill it in or remove the row; if it is a name, say so in task.labels",
        )
    if isinstance(value, int):
        hint = (
            "remove the row: -1 marks a held-out or out-of-scope label"
            if value == -1
            else "mend the label, or name all labels in task.labels"
        )
        return f"label {value} is out of range 0 to {len(names) - 1}", hint
    if not isinstance(value, str):
        return f"label {shown(value)} is a {type(value).__name__}", "write a whole number or a name"
    if value != value.strip():
        return f"label {shown(value)} has white space around it", "take it off"
    fault = text_fault(value)
    if fault:
        return f"the label {fault[0]}", fault[1]
    near = difflib.get_close_matches(value, names, n=1, cutoff=0.6)
    return (
        f"unknown label {shown(value)}",
        f"did you mean {shown(near[0])}?" if near else f"known are {shown(', '.join(names))}",
    )


def _scores(table: Table, values: Sequence[Any], faults: Faults) -> np.ndarray:
    """(N,) float32, every one finite."""
    scores = np.zeros(len(values), dtype=np.float32)
    for row, value in enumerate(values):
        number = _number(value)
        if number is None or not abs(number) <= float(np.finfo(np.float32).max):
            told = "is missing" if value is None or value == "" else "is not a finite number"
            faults.add(
                table.where(row),
                f"the score {told} ({shown(value)})",
                "write a number, or remove the row",
            )
        else:
            scores[row] = number
    return scores


def _number(value: Any) -> float | None:
    # float() also reads "1_000", which no data file means.
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float | str)
        or (isinstance(value, str) and "_" in value)
    ):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None
