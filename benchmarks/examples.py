"""Read the texts of a bench: from a csv, tsv, jsonl, parquet or txt file, or from a bundle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from kdedge.errors import DataError
from kdedge.io.atomic import hash_file
from kdedge.io.faults import Faults, shown, string_fault
from kdedge.io.multi_hot import are_multi_hot
from kdedge.io.table import Table, checked_texts
from kdedge.io.tabular import TEXT_SUFFIXES, read_table, stream_texts
from kdedge.runtime.bundle import Bundle
from kdedge.runtime.evaluation import read_evaluation
from kdedge.runtime.layout import EVALUATION
from kdedge.runtime.spec import BETWEEN_LABELS, TaskSpec
from kdedge.wording import counted


@dataclass(frozen=True)
class Examples:
    """N texts in file order, with pairs and labels if the file has them.

    Labels have the shape and type of a task's split.

    Attributes:
        source: Name, SHA-256 and columns of the file, or None for texts from elsewhere.
        teacher_logits: The teacher's logits, if they are known. *Shape:* (N, C)
    """

    texts: list[str]
    pairs: list[str] | None = None
    labels: np.ndarray | None = None
    source: Mapping[str, Any] | None = None
    teacher_logits: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def digest(self) -> str:
        """Return a SHA-256 of texts, pairs and labels: equal data has an equal digest."""
        labels = None if self.labels is None else self.labels.tolist()
        content = json.dumps([self.texts, self.pairs, labels])
        return hashlib.sha256(content.encode("utf-8")).hexdigest()

    def doubts(self, spec: TaskSpec) -> list[str]:
        """List reasons to doubt a score on these texts: blank texts, or one label for all."""
        lines = []
        blank = sum(not text.strip() for text in self.texts)
        if blank:
            lines.append(f"{blank} of {counted(len(self), 'text')} are blank")
        if spec.kind == "classification" and self.labels is not None:
            found = np.unique(self.labels)
            if len(found) == 1 and len(self) > 1:
                name = spec.labels[int(found[0])]
                lines.append(f"every text has the label {name!r}: a constant answer is right")
        return lines

    @property
    def lengths(self) -> np.ndarray:
        """Characters of each example, both texts of a pair together. *Shape:* (N,)"""
        lengths = np.array([len(text) for text in self.texts])
        if self.pairs is not None:
            lengths += np.array([len(text) for text in self.pairs])
        return lengths


def read_examples(
    path: Path, spec: TaskSpec, *, text: str = "text", pair: str = "pair", label: str | None = None
) -> Examples:
    """Read texts, for pair tasks second texts, and labels if a label column exists.

    Args:
        path: The file; a txt file has no labels and its blank lines are left out.
        spec: The task of the bundle.
        text: Column of the text.
        pair: Column of the second text.
        label: Column of the label; by default `label`, if a cell of it is not empty: then every
            row needs a label. All labels are names, or all are indices; if both are possible, as
            for names that are digits, they are names. A multilabel cell is a list (jsonl), or has
            `|` between its labels; if every cell is a list of C zeros and ones, it is multi-hot.

    Raises:
        DataError: Names file, line and value.
        UsageError: If the file cannot be read or a column does not exist.
    """
    columns = (text, pair) if spec.pair else (text,)
    examples = _read(path, spec, columns, label)
    source = {
        "file": path.name,
        "sha256": hash_file(path),
        "columns": list(columns),
        "label": label,
    }
    return replace(examples, source=source)


def packed_examples(bundle: Bundle) -> Examples | None:
    """Return the evaluation texts that travel with a bundle; None if it has none.

    Raises:
        IntegrityError: If they are not those that were exported.
    """
    evaluation = read_evaluation(bundle)
    if evaluation is None:
        return None
    pairs = None if evaluation.pairs is None else list(evaluation.pairs)
    source = {"file": EVALUATION, "sha256": bundle.manifest.files[EVALUATION]["sha256"]}
    return Examples(
        list(evaluation.texts), pairs, evaluation.labels, source, evaluation.teacher_logits
    )


def _read(path: Path, spec: TaskSpec, columns: tuple[str, ...], label: str | None) -> Examples:
    if path.suffix.lower() == ".txt":
        rows = [row for row in stream_texts(path, columns) if row[0].strip()]
        _require_rows(path, len(rows))
        return Examples([row[0] for row in rows], [row[1] for row in rows] if spec.pair else None)
    table = read_table(path, (*columns, label or "label"), suffixes=TEXT_SUFFIXES)
    _require_rows(path, len(table))
    faults = Faults(str(path))
    texts = checked_texts(table, columns[0], "--text", faults, string_fault)
    pairs = None
    if spec.pair:
        pairs = checked_texts(table, columns[1], "--pair", faults, string_fault)
    labels = None
    if label is not None:
        labels = _labels(spec, table, table.column(label, "--label"), faults)
    elif not all(_is_blank(value) for value in table.columns.get("label", ())):
        labels = _labels(spec, table, table.columns["label"], faults)
    faults.raise_if_any()
    return Examples(texts, pairs, labels)


def _require_rows(path: Path, count: int) -> None:
    if not count:
        raise DataError(
            "there is nothing to bench on",
            f"{path} holds no texts",
            "give a file with one example a line",
        )


def _labels(spec: TaskSpec, table: Table, values: Sequence[Any], faults: Faults) -> np.ndarray:
    """Return labels as a task's split holds them."""
    shape = (len(values), spec.outputs) if spec.kind == "multilabel" else (len(values),)
    labels = np.zeros(shape, np.int64 if spec.kind == "classification" else np.float32)
    # An empty cell of a multilabel task is a text with none of the labels.
    is_missing = _is_missing if spec.kind == "multilabel" else _is_blank
    values = [None if is_missing(value) else value for value in values]
    given = [value for value in values if value is not None]
    if spec.kind == "multilabel" and given and are_multi_hot(given, spec.outputs):
        values = [None if value is None else _hot_labels(spec, value) for value in values]
    index_of = _reading(spec, values)
    known = f"labels are {', '.join(spec.labels[:8])}, or all are indices from 0"
    if spec.kind == "regression":
        known = "labels are numbers"
    for row, value in enumerate(values):
        if value is None:
            faults.add(table.where(row), "the label is missing", "every row needs one, or none")
            continue
        try:
            if spec.kind == "multilabel":
                labels[row, [index_of[label] for label in _labels_of(spec, value)]] = 1
            elif spec.kind == "regression":
                labels[row] = _finite(value)
            else:
                (label,) = _labels_of(spec, value)
                labels[row] = index_of[label]
        except (ValueError, TypeError, KeyError):
            faults.add(
                table.where(row),
                f"label {shown(value)} is not one of this bundle",
                f"{known}; name the label column with --label (in Python: give (texts, labels))",
            )
    return labels


def _is_missing(value: Any) -> bool:
    """Return whether a cell is None or NaN, the missing value of a DataFrame."""
    return value is None or (isinstance(value, float) and np.isnan(value))


def _is_blank(value: Any) -> bool:
    return _is_missing(value) or (isinstance(value, str) and not value.strip())


def _hot_labels(spec: TaskSpec, value: Sequence[float]) -> list[str]:
    """Return the names of the labels that are 1 in a multi-hot list."""
    return [name for name, is_on in zip(spec.labels, value, strict=True) if is_on]


def _reading(spec: TaskSpec, values: Sequence[Any]) -> Mapping[str, int]:
    """Return the names or the indices of labels, each -> index: whichever fits more rows.

    Names may be digits, so no single value tells whether a column holds names or indices. If both
    fit, they are names.
    """
    names = {name: index for index, name in enumerate(spec.labels)}
    indices = {str(index): index for index in range(spec.outputs)}
    cells = [_labels_of(spec, value) for value in values if value is not None]

    def rows_that_fit(known: Mapping[str, int]) -> int:
        return sum(known.keys() >= {*cell} for cell in cells)

    return max(names, indices, key=rows_that_fit)


def _labels_of(spec: TaskSpec, value: Any) -> list[str]:
    """Return the names or indices of labels in one cell."""
    if isinstance(value, bool):  # As in training: true is the label 1.
        value = int(value)
    if spec.kind != "multilabel":
        return [str(value).strip()]
    if isinstance(value, list):
        return [str(label).strip() for label in value]
    labels = str(value).split(BETWEEN_LABELS)
    return [label.strip() for label in labels if label.strip()]


def _finite(value: Any) -> float:
    number = float(value)
    if not np.isfinite(number):
        raise ValueError(value)
    return number
