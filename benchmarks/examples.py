"""Reads texts to bench a bundle on, with no packages: csv, tsv, jsonl, or txt with one text a line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdedge.errors import DataError, UsageError
from kdedge.runtime.spec import BETWEEN_LABELS, TaskSpec

Record = dict[str, Any]

csv.field_size_limit(1 << 27)


@dataclass(frozen=True)
class Examples:
    """N texts in file order; pairs and labels where the file has them (labels shaped as in a task's split)."""

    texts: list[str]
    pairs: list[str] | None = None
    labels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.texts)


def read_examples(
    path: Path, spec: TaskSpec, *, text: str = "text", pair: str = "pair", label: str | None = None
) -> Examples:
    """Read the columns `text`, for pair tasks `pair`, and `label` when it is named or there is a column of that name.

    Labels are names or indices; for multilabel several, separated by commas (a list in jsonl).
    Raises DataError that names file, line and value; UsageError for a file it cannot read at all.
    """
    rows = list(_records(path, text))
    if not rows:
        raise DataError(
            "there is nothing to bench on",
            f"{path} holds no texts",
            "give a file with one example a line",
        )
    label = label or ("label" if all("label" in record for _, record in rows) else None)
    texts = [_text(path, line, record, text) for line, record in rows]
    pairs = [_text(path, line, record, pair) for line, record in rows] if spec.pair else None
    if label is None:
        return Examples(texts, pairs)
    values = [_label(spec, path, line, _cell(path, line, record, label)) for line, record in rows]
    return Examples(
        texts,
        pairs,
        np.array(values, dtype=np.int64 if spec.kind == "classification" else np.float32),
    )


def _records(path: Path, text: str) -> Iterator[tuple[int, Record]]:
    """Line number and columns of each example."""
    readers = {
        ".csv": _delimited(","),
        ".tsv": _delimited("\t"),
        ".jsonl": _jsonl,
        ".txt": _plain(text),
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UsageError(
            "this kind of file is not read here", str(path), f"give one of {', '.join(readers)}"
        )
    try:
        content = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UsageError(
            "the texts cannot be read", f"{path}: {error.strerror}", "name a file that is there"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(
            "the file is not UTF-8", f"{path}: byte {error.start}", "save it as UTF-8"
        ) from error
    return iter(reader(path, content))


def _delimited(delimiter: str) -> Any:
    def read(path: Path, content: str) -> Iterator[tuple[int, Record]]:
        # strict: a stray quote is an error, and would otherwise swallow lines silently. GLUE's tsv files are not quoted.
        stream = io.StringIO(content, newline="")
        if delimiter == "\t":
            reader = csv.DictReader(stream, delimiter=delimiter, quoting=csv.QUOTE_NONE)
        else:
            reader = csv.DictReader(stream, delimiter=delimiter, strict=True)
        try:
            for record in reader:
                if None in record or None in record.values():
                    raise DataError(
                        "a row has another number of columns than the header",
                        f"{path}:{reader.line_num}",
                        "quote texts that hold the separator",
                    )
                yield reader.line_num, record
        except csv.Error as error:
            raise DataError(
                "the file is not well-formed", f"{path}:{reader.line_num}: {error}", "mend the line"
            ) from error

    return read


def _jsonl(path: Path, content: str) -> Iterator[tuple[int, Record]]:
    for number, line in enumerate(content.split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise DataError(
                "a line is not JSON", f"{path}:{number}: {error}", "write one object a line"
            ) from error
        if not isinstance(record, dict):
            raise DataError(
                "a line is not a JSON object",
                f"{path}:{number}: {line[:60]!r}",
                'write {"text": "..."}',
            )
        yield number, record


def _plain(text: str) -> Any:
    def read(path: Path, content: str) -> Iterator[tuple[int, Record]]:
        return (
            (number, {text: line.rstrip("\r")})
            for number, line in enumerate(content.split("\n"), 1)
            if line.strip()
        )

    return read


def _cell(path: Path, line: int, record: Record, column: str) -> Any:
    if record.get(column) is None:
        raise DataError(
            f"there is no {column!r} here",
            f"{path}:{line} has {', '.join(map(str, record))}",
            "name the columns with --text, --pair and --label",
        )
    return record[column]


def _text(path: Path, line: int, record: Record, column: str) -> str:
    value = _cell(path, line, record, column)
    if not isinstance(value, str):
        raise DataError("a text is not a string", f"{path}:{line} {column} = {value!r}", "quote it")
    return value


def _label(spec: TaskSpec, path: Path, line: int, value: Any) -> Any:
    """An index, a row of 0 and 1, or a number, by the kind of task."""
    try:
        if spec.kind == "regression":
            number = float(value)
            if not np.isfinite(number):
                raise ValueError(value)
            return number
        if spec.kind == "multilabel":
            names = (
                value
                if isinstance(value, list)
                else [part for part in str(value).split(BETWEEN_LABELS) if part.strip()]
            )
            chosen = {_index(spec, name) for name in names}
            return [float(i in chosen) for i in range(spec.outputs)]
        return _index(spec, value)
    except (ValueError, TypeError) as error:
        found = f"{path}:{line} has {value!r}; labels are {', '.join(spec.labels[:8])}"
        raise DataError(
            "a label is not one of this bundle", found, "name the label column with --label"
        ) from error


def _index(spec: TaskSpec, value: Any) -> int:
    """A label's place: by its name first, since names may be digits."""
    name = str(value).strip()
    index = spec.labels.index(name) if name in spec.labels else int(name)
    if not 0 <= index < spec.outputs:
        raise ValueError(value)
    return index
