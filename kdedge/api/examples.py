"""Examples in memory: lists, a `datasets.Dataset` or a DataFrame, checked row by row."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kdedge.benchmarks.examples import Examples
from kdedge.benchmarks.examples import read_examples as read_file
from kdedge.errors import DataError, UsageError
from kdedge.io.atomic import write_atomic
from kdedge.io.faults import Faults, shown, string_fault
from kdedge.io.table import missing_column
from kdedge.runtime.spec import TaskSpec

FORMS = "(texts, labels), a datasets.Dataset or a DataFrame with the columns text and label"


@dataclass(frozen=True)
class MemoryExamples:
    """N examples that are not in a file.

    Attributes:
        role: The name of the argument that held them, for messages.
        texts: N texts.
        pairs: N second texts, or None.
        labels: N labels as JSON values, or None for unlabelled texts.
        label_names: Label names by index, if the data set itself has them.
    """

    role: str
    texts: list[str]
    pairs: list[str] | None
    labels: list[Any] | None = None
    label_names: list[str] | None = None

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def where(self) -> list[str]:
        """The name of each example in messages, such as `train[3]`."""
        return [f"{self.role}[{row}]" for row in range(len(self))]

    def write(self, path: Path) -> None:
        """Write the examples as a jsonl file with the columns text, pair and label."""
        lines = []
        for row, text in enumerate(self.texts):
            cells: dict[str, Any] = {"text": text}
            if self.pairs is not None:
                cells["pair"] = self.pairs[row]
            if self.labels is not None:
                cells["label"] = self.labels[row]
            lines.append(json.dumps(cells, ensure_ascii=False) + "\n")
        write_atomic(path, "".join(lines))


def read_labelled(data: Any, role: str) -> MemoryExamples:
    """Read labelled examples.

    Args:
        data: `(texts, labels)`, a `datasets.Dataset`, or a DataFrame with the columns text,
            label and, for pairs, pair. A text of a pair task is a tuple of two strings.
        role: The name of the argument, for messages.

    Raises:
        UsageError: If the form is another one, or a column is missing.
        DataError: Lists the texts and labels that cannot be used.
    """
    if _is_table(data):
        texts, pairs = _text_columns(data, role)
        labels = column_values(data, "label", role)
        names = _class_names(data)
    elif isinstance(data, tuple) and len(data) == 2:
        texts, pairs = _split_pairs(as_list(data[0], f"the texts of {role}"), role)
        labels = as_list(data[1], f"the labels of {role}")
        names = None
    else:
        raise UsageError(
            f"{role} has a form that kdedge does not know",
            _described(data),
            f"give {FORMS}",
        )
    if len(texts) != len(labels):
        raise UsageError(
            f"{role}: each text needs a label",
            f"{len(texts)} texts, {len(labels)} labels",
            "give as many labels as texts",
        )
    values = [_named(plain(label), names) for label in labels]
    examples = MemoryExamples(role, texts, pairs, values, names)
    _check_strings(examples)
    return examples


def _named(label: Any, names: list[str] | None) -> Any:
    """Return the name of a label that is an index of a data set with names of its own.

    Another data set may have the same names in another order.
    """
    if names is None:
        return label
    if isinstance(label, list):
        return [_named(item, names) for item in label]
    known = isinstance(label, int) and 0 <= label < len(names)
    return names[label] if known else label


def read_unlabelled(data: Any, role: str) -> MemoryExamples:
    """Read texts without labels: an iterable of texts or pairs, or a table with a text column.

    Raises:
        UsageError: If the form is another one.
        DataError: Lists the texts that cannot be used.
    """
    if _is_table(data):
        texts, pairs = _text_columns(data, role)
    else:
        texts, pairs = _split_pairs(as_list(data, role), role)
    examples = MemoryExamples(role, texts, pairs)
    _check_strings(examples)
    return examples


def read_examples(data: Any, role: str) -> MemoryExamples:
    """Read examples with labels if there are any: `(texts, labels)`, a table, or texts alone."""
    if _is_table(data):
        labelled = "label" in (_column_names(data) or ())
    else:
        labelled = isinstance(data, tuple) and len(data) == 2 and not isinstance(data[0], str)
    return read_labelled(data, role) if labelled else read_unlabelled(data, role)


def examples_of_task(given: MemoryExamples, spec: TaskSpec) -> Examples:
    """Return examples with labels as a task's split holds them.

    Raises:
        UsageError: If only one of task and examples has pairs.
        DataError: If a label is not one of the task's.
    """
    if spec.pair != (given.pairs is not None):
        wanted = "pairs of texts" if spec.pair else "single texts"
        raise UsageError(
            f"{given.role}: the classifier reads {wanted}",
            "the examples are not",
            "give tuples of two texts" if spec.pair else "give single texts",
        )
    # The reader of files checks every label against the task.
    with TemporaryDirectory(prefix="kdedge-") as folder:
        path = Path(folder) / f"{given.role}.jsonl"
        given.write(path)
        try:
            return read_file(path, spec)
        except DataError as error:
            raise _without_file(error, path, given.role) from None


def _without_file(error: DataError, path: Path, role: str) -> DataError:
    """Return an error that names `role[0]` where it named the first line of a file."""

    def renamed(text: str) -> str:
        places = re.sub(
            re.escape(str(path)) + r":(\d+)", lambda line: f"{role}[{int(line[1]) - 1}]", text
        )
        return places.replace(str(path), role)

    return DataError(renamed(error.message), renamed(error.detail), error.hint)


def as_list(values: Any, what: str) -> list[Any]:
    """Return the items of an iterable, in order.

    Raises:
        UsageError: If iterating would give characters, keys or an arbitrary order.
    """
    no_list = isinstance(values, str | bytes | Mapping | AbstractSet) or _is_table(values)
    if no_list or not isinstance(values, Iterable):
        raise UsageError(f"{what} must be a list", _described(values), "give a list of values")
    converter = getattr(values, "tolist", None)
    return list(converter() if converter else values)


def plain(value: Any) -> Any:
    """Return a label as JSON can hold it: numpy and torch values become Python's."""
    converter = getattr(value, "tolist", None)
    if converter:
        value = converter()
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def column_values(table: Any, name: str, role: str) -> list[Any]:
    """Return a column of a table. Raises UsageError that lists the columns if it is missing."""
    names = _column_names(table)
    if name not in names:
        raise missing_column(role, name, [str(other) for other in names])
    return as_list(table[name], f"the column {name} of {role}")


def _is_table(data: Any) -> bool:
    """Return whether data is a `datasets.Dataset` or a DataFrame, without importing either."""
    return not isinstance(data, type) and bool(_column_names(data) is not None)


def _column_names(data: Any) -> Any:
    """Return the column names of a Dataset or DataFrame, else None."""
    for attribute in ("column_names", "columns"):
        names = getattr(data, attribute, None)
        if names is not None and not isinstance(names, Mapping) and not callable(names):
            return list(names)
    return None


def _text_columns(table: Any, role: str) -> tuple[list[str], list[str] | None]:
    texts = column_values(table, "text", role)
    pairs = column_values(table, "pair", role) if "pair" in _column_names(table) else None
    return texts, pairs


def _class_names(table: Any) -> list[str] | None:
    """Return the label names that a `datasets.Dataset` knows from its ClassLabel."""
    features = getattr(table, "features", None) or {}
    feature = features.get("label")
    names = getattr(getattr(feature, "feature", feature), "names", None)
    return list(names) if names else None


def _split_pairs(texts: list[Any], role: str) -> tuple[list[str], list[str] | None]:
    """Return first and second texts; the second are None if every item is one text."""
    paired = [isinstance(text, tuple | list) and len(text) == 2 for text in texts]
    if not any(paired):
        return texts, None
    if not all(paired):
        row = paired.index(not paired[0])
        raise DataError(
            f"{role} mixes single texts and pairs",
            f"item 0 is {shown(texts[0])}, item {row} is {shown(texts[row])}",
            "give only texts, or only tuples of two texts",
        )
    return [first for first, _ in texts], [second for _, second in texts]


def _check_strings(examples: MemoryExamples) -> None:
    """Raise DataError if a text is no string, or a label is nothing that JSON can hold."""
    faults = Faults(examples.role)
    places = examples.where
    for column in (examples.texts, examples.pairs or []):
        for row, text in enumerate(column):
            fault = string_fault(text)
            if fault:
                faults.add(places[row], f"the text {fault[0]}", fault[1])
    for row, label in enumerate(examples.labels or []):
        if not _is_json(label):
            kind = type(label).__name__
            faults.add(
                places[row], f"the label is a {kind} ({shown(label)})", "give a name or a number"
            )
    faults.raise_if_any()


def _is_json(label: Any) -> bool:
    if isinstance(label, list):
        return all(_is_json(item) for item in label)
    if isinstance(label, str):
        return string_fault(label) is None
    return label is None or isinstance(label, int | float)


def _described(value: Any) -> str:
    """Return the type and the beginning of a value."""
    kind = type(value).__name__
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        kind += f" of {len(value)} items"
    return f"a {kind}: {shown(value)}"
