"""The names of a task's labels: given ones, or those of the label column.

csv files write an index as digits: digits are a name if no names are known.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdedge.data.label_cells import as_number, is_index, is_missing, labels_of_cell
from kdedge.errors import UsageError
from kdedge.io.encoding import read_text
from kdedge.io.faults import Faults, shown, text_fault
from kdedge.io.table import Table
from kdedge.runtime.spec import Kind

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
        for item in labels_of_cell(kind, value):
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
    numbers = [as_number(name) for name in names]
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
    return (0, int(name), name) if is_index(name) else (1, 0, name)


def _is_name(text: str) -> bool:
    """Return whether a string can be a label name; "nan" is a missing value."""
    return text == text.strip() and not is_missing(text) and text_fault(text) is None
