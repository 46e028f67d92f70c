"""Turn a label column into a label array.

- A whole number is an index and a string is a name. csv files write an index as digits: digits
  are a name if such a name is known or no names are known. They are an index if the known names
  have no digits-only name.
- A multilabel cell lists names or indices; csv and tsv files write "|" between them.
- If every multilabel cell of train is a list of C >= 2 zeros and ones, each cell is a multi-hot
  vector of C labels. As indices, such lists would repeat labels.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from kdedge.data.label_cells import as_number, is_index, is_missing, labels_of_cell
from kdedge.data.label_names import Names
from kdedge.io.faults import Faults, shown, text_fault
from kdedge.io.multi_hot import are_multi_hot, is_multi_hot
from kdedge.io.table import Table
from kdedge.runtime.spec import Kind


def are_switches(values: Sequence[Any], names: Names | None) -> bool:
    """Return whether the cells of a multilabel column are multi-hot lists: C zeros and ones.

    Missing cells do not count.
    """
    present = [value for value in values if not is_missing(value)]
    if names:
        width = len(names)
    elif present and isinstance(present[0], list | tuple):
        width = len(present[0])
    else:
        return False
    return are_multi_hot(present, width)


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
        cells = [labels_of_cell(kind, value)[0] for value in values]
        indices = [reader.index(label, row) for row, label in enumerate(cells)]
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
            indices = [reader.index(item, row) for item in labels_of_cell(kind, value)]
            labels[row, indices] = 1
    return labels


def _cell_fault(value: Any, width: int, switches: bool) -> str | None:
    """Return what is wrong with the form of a multilabel cell, or None."""
    if switches:
        if is_missing(value):
            return "the label is missing"
        valid = is_multi_hot(value, width)
        return None if valid else f"the label is not {width} zeros and ones, as in train"
    items = [item for item in labels_of_cell("multilabel", value) if isinstance(item, str | int)]
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
        if not any(is_index(name) for name in names):
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


def _label_fault(value: Any, names: Names) -> tuple[str, str]:
    """Return (fault, remedy) of a label that has no index."""
    if is_missing(value):
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
        problem = "is negative" if value < 0 else f"is out of range 0 to {len(names) - 1}"
        return f"label {shown(value)} {problem}", remedy
    if not isinstance(value, str):
        remedy = "write a whole number or a name"
        if isinstance(value, list):
            remedy = 'for several labels of a text, set task.kind = "multilabel" (in Python: kind)'
        elif isinstance(value, float | Decimal):
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
        number = as_number(value)
        if number is not None and abs(number) <= largest:
            scores[row] = number
            continue
        fault = "is missing" if is_missing(value) else "is not a finite number"
        faults.add(
            table.where(row),
            f"the score {fault} ({shown(value)})",
            "write a number, or remove the row",
        )
    return scores
