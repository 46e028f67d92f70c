"""Turn a label column into label names and a label array.

- A whole number is an index and a string is a name. csv files write an index as digits: digits
  are a name if such a name is known or no names are known. They are an index if the known names
  have no digits-only name.
- A multilabel cell lists names or indices; csv and tsv files write "|" between them.
- If every multilabel cell of train is a list of C >= 2 zeros and ones, each cell is a multi-hot
  vector of C labels. As indices, such lists would repeat labels.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from kdedge.errors import UsageError
from kdedge.io.encoding import read_text
from kdedge.io.faults import Faults, shown, text_fault
from kdedge.io.multi_hot import are_multi_hot, is_multi_hot
from kdedge.io.table import Table
from kdedge.runtime.spec import BETWEEN_LABELS, Kind

Names = tuple[str, ...]

WITH_COMMA = re.compile(r"-?[0-9]+(,[0-9]+)?")
"""A whole number, or one with a comma: a decimal sign, or a separator of thousands."""

LONGEST_NAME = 1000
"""Characters of a label. Every prediction repeats labels, and a longer one is a text."""


def known_names(
    kind: Kind, labels: list[str] | str | None, folder: Path | None, train: Table
) -> Names | None:
    """Return label names from task.labels, else from the source, else from its labels.json.

    Raises UsageError if the names are not valid label names.
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
        return _checked_names(kind, labels, "task.labels")
    if labels is not None:
        return _checked_names(kind, _read_names(Path(labels)), labels)
    if train.label_names is not None:
        return _checked_names(kind, list(train.label_names), train.origin)
    if folder and (folder / "labels.json").is_file():
        path = folder / "labels.json"
        return _checked_names(kind, _read_names(path), str(path))
    return None


def _checked_names(kind: Kind, names: list[Any], origin: str) -> Names:
    """Return the names; raise UsageError if they are too few, repeated or not texts."""
    invalid = [name for name in names if text_fault(name) is not None]
    if not invalid:
        invalid = sorted({name for name in names if names.count(name) > 1})
    if invalid:
        raise UsageError(
            f"{origin}: label names are distinct strings",
            shown(invalid[0]),
            "give every label a name of its own",
        )
    minimum = 2 if kind == "classification" else 1
    if len(names) < minimum:
        raise UsageError(
            f"{origin}: a {kind} has at least {minimum} labels",
            f"{len(names)}",
            "name them all, in the order of their indices",
        )
    return tuple(names)


def _read_names(path: Path) -> list[Any]:
    """Read a JSON list of names, or an object from index to name."""
    try:
        document = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{path}: not JSON",
            str(error),
            'write a list of names, such as ["negative", "positive"]',
        ) from error
    if isinstance(document, list):
        return document
    if isinstance(document, dict):
        indices = [str(index) for index in range(len(document))]
        if set(document) == set(indices):
            return [document[index] for index in indices]
    raise UsageError(
        f"{path}: not a list of label names",
        shown(document),
        "write a list, or an object from index 0, 1, 2 ... to name",
    )


def are_switches(values: Sequence[Any], names: Names | None) -> bool:
    """Return whether every cell of a multilabel column is a multi-hot list (C zeros and ones)."""
    if names:
        width = len(names)
    elif len(values) and isinstance(values[0], list | tuple):
        width = len(values[0])
    else:
        return False
    return are_multi_hot(values, width)


def names_of_train(kind: Kind, table: Table, values: Sequence[Any], faults: Faults) -> Names:
    """Derive label names from the train split.

    Returns:
        If the column holds strings: these, digits-only strings first in numeric order, then the
        others alphabetically. If it holds indices: "0", "1" ... up to the highest one.

    Raises:
        DataError: If the column mixes strings and numbers.
        UsageError: If the column holds texts or scores rather than labels.
    """
    items: list[str | int] = []
    for row, value in enumerate(values):
        for item in _items(kind, value):
            if not isinstance(item, str | int):
                continue
            items.append(item)
            if isinstance(item, str) != isinstance(items[0], str):
                faults.add(
                    table.where(row),
                    f"label {shown(item)} among labels such as {shown(items[0])}",
                    "write all labels as names or all as indices",
                )
    faults.raise_if_any()
    if items and isinstance(items[0], str):
        strings = [str(item) for item in items]
        if kind == "classification":
            _refuse_scores(table, strings)
        return _string_names(table, strings, len(values))
    # A stray huge index must not make a huge model: classes are never more than examples.
    count = max((int(item) for item in items), default=-1) + 1
    return tuple(str(index) for index in range(min(count, max(len(values), 2))))


def _refuse_scores(table: Table, items: list[str]) -> None:
    """Raise UsageError if all labels are numbers and some have a fraction or a comma: 3.75, 3,75.

    Whole numbers can be classes, and spreadsheets write 4 next to 3,75.
    """
    names = [item for item in items if _is_name(item)]
    commas = [name for name in names if "," in name]
    if commas and all(WITH_COMMA.fullmatch(name) for name in names):
        raise UsageError(
            f"{table.origin}: the label column holds numbers with a comma",
            shown(commas[0]),
            'for scores, write 3.75 for 3,75, and set task.kind = "regression" (in Python: kind); '
            "for several labels of a text, write | between them; "
            "for classes, list their names in task.labels (in Python: labels)",
        )
    numbers = [_number(name) for name in names]
    finite = [number for number in numbers if number is not None and math.isfinite(number)]
    fractions = [number for number in finite if number % 1]
    if fractions and len(finite) == len(numbers):
        raise UsageError(
            f"{table.origin}: the label column holds numbers with fractions",
            shown(fractions[0]),
            'for scores, set task.kind = "regression" (in Python: kind); '
            "for classes, list their names in task.labels (in Python: labels)",
        )


def _string_names(table: Table, items: list[str], rows: int) -> Names:
    names = {item for item in items if _is_name(item)}
    if len(names) > max(1000, rows // 2):
        raise UsageError(
            f"{table.origin}: the label column holds {len(names)} different strings",
            shown(items[0]),
            "set data.label to the column of labels",
        )
    longest = max(names, key=len, default="")
    if len(longest) > LONGEST_NAME:
        raise UsageError(
            f"{table.origin}: a label has {len(longest):,} characters, more than {LONGEST_NAME:,}",
            shown(longest),
            "set data.label to the column of labels, or shorten the labels",
        )
    return tuple(sorted(names, key=_name_order))


def _name_order(name: str) -> tuple[int, int, str]:
    """Return a sort key: digits-only names by number, then other names alphabetically."""
    return (0, int(name), name) if _is_index(name) else (1, 0, name)


def _is_name(text: str) -> bool:
    """Return whether a string can be a label name; "nan" is a missing value."""
    return text == text.strip() and text.lower() != "nan" and text_fault(text) is None


def _items(kind: Kind, value: Any) -> list[Any]:
    """Return the list of labels in one cell."""
    if kind != "multilabel":
        return [value]
    if isinstance(value, str):
        parts = [part.strip() for part in value.split(BETWEEN_LABELS)]
        return [part for part in parts if part]
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
    """Return labels as `kdedge.data.task.Split` holds them; faulty rows go to `faults`.

    Args:
        kind: The kind of task.
        names: The label names, by index.
        table: The table of the column, for places in messages.
        values: The label column.
        faults: Collects what is wrong with each row.
        switches: Whether multilabel cells are multi-hot lists, see `are_switches`.
    """
    if kind == "regression":
        return _scores(table, values, faults)
    reader = _LabelReader(names, table, faults)
    if kind == "classification":
        indices = [reader.index(value, row) for row, value in enumerate(values)]
        return np.array(indices, dtype=np.int64)
    labels = np.zeros((len(values), max(len(names), 1)), dtype=np.float32)
    for row, value in enumerate(values):
        fault = _cell_fault(value, len(names), switches)
        if fault:
            faults.add(
                table.where(row),
                f"{fault} ({shown(value)})",
                "list each label once, or write one 0 or 1 for each label in every row",
            )
        elif switches:
            labels[row] = value
        else:
            indices = [reader.index(item, row) for item in _items(kind, value)]
            labels[row, indices] = 1
    return labels


def _cell_fault(value: Any, width: int, switches: bool) -> str | None:
    """Return what is wrong with the form of a multilabel cell, or None."""
    if switches:
        valid = is_multi_hot(value, width)
        return None if valid else f"the label is not {width} zeros and ones, as in train"
    items = [item for item in _items("multilabel", value) if isinstance(item, str | int)]
    if any(isinstance(item, bool) for item in items):
        return "true and false are no labels"
    return "a label stands twice" if len(set(items)) < len(items) else None


class _LabelReader:
    """Turn single labels into indices."""

    def __init__(self, names: Names, table: Table, faults: Faults) -> None:
        self.names = names
        self.table = table
        self.faults = faults
        self.indices = {name: index for index, name in enumerate(names)}
        if not any(_is_index(name) for name in names):
            self.indices |= {str(index): index for index in range(len(names))}

    def index(self, label: Any, row: int) -> int:
        """Return the class of one label, or 0 after reporting its fault."""
        if isinstance(label, str) and label in self.indices:
            return self.indices[label]
        if isinstance(label, int) and 0 <= label < len(self.names):
            return int(label)
        fault, remedy = _label_fault(label, self.names)
        self.faults.add(self.table.where(row), fault, remedy)
        return 0


def _is_missing(value: Any) -> bool:
    """Return whether a value is None, empty or "nan", the missing value of a table."""
    if isinstance(value, str):
        return value == "" or value.strip().lower() == "nan"
    return value is None or (isinstance(value, float) and math.isnan(value))


def _label_fault(value: Any, names: Names) -> tuple[str, str]:
    """Return (fault, remedy) of a label that has no index."""
    if _is_missing(value):
        return (
            f"the label is missing ({shown(value)})",
            "fill it in or remove the row; if it is a name, list it in task.labels",
        )
    if isinstance(value, int):
        remedy = "correct the label, or name all labels in task.labels"
        if value == -1:
            remedy = (
                "if -1 is a class, write all labels as names in quotes; if it marks a text "
                "without a label, remove the row"
            )
        return f"label {value} is out of range 0 to {len(names) - 1}", remedy
    if not isinstance(value, str):
        remedy = "write a whole number or a name"
        if isinstance(value, list):
            remedy = 'for several labels of a text, set task.kind = "multilabel" (in Python: kind)'
        elif isinstance(value, float):
            remedy = (
                'for scores, set task.kind = "regression" (in Python: kind); '
                "for classes, write whole numbers or names"
            )
        return f"label {shown(value)} is a {type(value).__name__}", remedy
    if value != value.strip():
        return f"label {shown(value)} has white space around it", "remove the white space"
    fault = text_fault(value)
    if fault:
        return f"the label {fault[0]}", fault[1]
    near = difflib.get_close_matches(value, names, n=1, cutoff=0.6)
    remedy = f"known labels are {shown(', '.join(names))}"
    if near:
        remedy = f"did you mean {shown(near[0])}?"
    return f"unknown label {shown(value)}", remedy


def _scores(table: Table, values: Sequence[Any], faults: Faults) -> np.ndarray:
    """Return the scores of a regression; report non-finite ones as faults. *Shape:* (N,) float32"""
    scores = np.zeros(len(values), dtype=np.float32)
    largest = float(np.finfo(np.float32).max)
    for row, value in enumerate(values):
        number = _number(value)
        if number is not None and abs(number) <= largest:
            scores[row] = number
            continue
        fault = "is missing" if value is None or value == "" else "is not a finite number"
        faults.add(
            table.where(row),
            f"the score {fault} ({shown(value)})",
            "write a number, or remove the row",
        )
    return scores


def _number(value: Any) -> float | None:
    # Parquet files of databases hold decimals.
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return None
    if isinstance(value, str) and "_" in value:  # float() reads "1_000", which no file means
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None
