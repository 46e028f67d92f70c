"""Read csv, tsv, jsonl, txt and parquet files, with the line number of each row.

Values are not converted: "NA" and "007" stay strings.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from kdedge.errors import DataError, UsageError
from kdedge.io.delimited import SourceRow, delimited_rows
from kdedge.io.encoding import open_text
from kdedge.io.faults import Faults, OnFault, raise_fault, shown, string_fault
from kdedge.io.parquet import read_parquet
from kdedge.io.table import Table, missing_column

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
"""Files that have named columns."""
STREAMED_SUFFIXES = (".csv", ".tsv", ".jsonl", ".txt")
"""Files that are read row by row."""
TEXT_SUFFIXES = (*TABLE_SUFFIXES, ".txt")
"""Files of texts without labels."""
COLUMN_OPTIONS = ("--column", "--pair-column")
"""Options of `kdedge predict` that name the columns, for messages."""


def read_table(
    path: Path,
    columns: Sequence[str],
    encoding: str = "utf-8",
    delimiter: str | None = None,
    suffixes: tuple[str, ...] = TABLE_SUFFIXES,
) -> Table:
    """Read the named columns of a csv, tsv, jsonl or parquet file.

    Args:
        path: The file.
        columns: The columns to read.
        encoding: As for `open_text`.
        delimiter: As for `iter_rows`.
        suffixes: The file types that are allowed. The lines of a txt file hold the columns, with
            tabs between them.

    Raises:
        DataError: Lists up to ten malformed rows with file and line.
        UsageError: If the file type or the encoding is unknown, or the file cannot be read.
    """
    require_suffix(path, suffixes)
    if path.suffix.lower() == ".parquet":
        return read_parquet(path, columns)
    faults = Faults(str(path))
    values: dict[str, list[Any]] = {name: [] for name in columns}
    names: dict[str, None] = {}
    lines: list[int] = []
    for row in iter_rows(path, columns, encoding, faults.add, delimiter):
        lines.append(row.line)
        names |= dict.fromkeys(row.cells)
        for name, column in values.items():
            column.append(row.cells.get(name))
    faults.raise_if_any()
    existing = {name: column for name, column in values.items() if name in names}
    return Table(str(path), existing, tuple(names), lines)


def stream_texts(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Stream the named columns of a csv, tsv, jsonl or txt file, one tuple of texts a row.

    Args:
        path: The file.
        columns: The columns to read, as `--column` and `--pair-column` name them.

    Raises:
        DataError: If the file does not exist, or a row is malformed or lacks a text.
        UsageError: If the file type is unknown, or the first row lacks a column.
    """
    require_suffix(path, STREAMED_SUFFIXES)
    if not path.exists():
        raise DataError("the file cannot be read", f"{path} does not exist", "check its name")
    names: tuple[str, ...] = ()
    for line, cells in iter_rows(path, columns):
        names = names or tuple(cells)
        for name, option in zip(columns, COLUMN_OPTIONS, strict=False):
            if name not in names:
                raise missing_column(str(path), name, names, option)
            fault = string_fault(cells.get(name))
            if fault:
                raise_fault(f"{path}:{line}", f"column {shown(name)} {fault[0]}", fault[1])
        yield tuple(cells[name] for name in columns)


def iter_rows(
    path: Path,
    columns: Sequence[str],
    encoding: str = "utf-8",
    on_fault: OnFault = raise_fault,
    delimiter: str | None = None,
) -> Iterator[SourceRow]:
    """Stream every column of a csv, tsv, jsonl or txt file.

    `columns` is used only to recognise the delimiter, and to name the texts of a txt line.

    Args:
        path: The file. tsv files have no quotes, as in GLUE.
        columns: The columns that the caller needs. A txt line holds one text for each, with tabs
            between them.
        encoding: As for `open_text`.
        on_fault: Called for malformed rows, which are left out; by default it raises DataError.
        delimiter: Separates the columns of a csv file; None: recognised from the header.

    Raises:
        DataError: If the header or a byte is malformed.
        UsageError: If the file type or the encoding is unknown, or the file cannot be read.
    """
    require_suffix(path, STREAMED_SUFFIXES)
    suffix = path.suffix.lower()
    with open_text(path, encoding, newline="" if suffix == ".csv" else "\n") as stream:
        if suffix == ".jsonl":
            yield from _jsonl_rows(path, stream, on_fault)
        elif suffix == ".txt":
            yield from _txt_rows(path, stream, columns, on_fault)
        else:
            yield from delimited_rows(path, stream, columns, delimiter, on_fault)


def require_suffix(path: Path, suffixes: tuple[str, ...]) -> None:
    """Raise UsageError if the file is of another type."""
    if path.suffix.lower() not in suffixes:
        endings = ", ".join(suffix[1:] for suffix in suffixes)
        raise UsageError(
            "this file type is not supported",
            str(path),
            f"convert the file to one of {endings}",
        )


def _jsonl_rows(path: Path, stream: TextIO, on_fault: OnFault) -> Iterator[SourceRow]:
    for number, line in enumerate(stream, 1):
        if not line or line.isspace():
            continue
        where = f"{path}:{number}"
        try:
            cells = json.loads(line)
        except (ValueError, RecursionError) as error:
            fault = f"not JSON: {str(error)[:100]}"
            on_fault(where, fault, "write one JSON object a line")
            continue
        if isinstance(cells, dict):
            yield SourceRow(number, cells)
        else:
            fault = f"not a JSON object but a {type(cells).__name__}"
            on_fault(where, fault, 'write it as {"text": ..., "label": ...}')


def _txt_rows(
    path: Path, stream: TextIO, columns: Sequence[str], on_fault: OnFault
) -> Iterator[SourceRow]:
    for number, line in enumerate(stream, 1):
        text = line.rstrip("\r\n")
        texts = [text] if len(columns) == 1 else text.split("\t")
        if not text.strip():
            texts = [""] * len(columns)
        if len(texts) == len(columns):
            yield SourceRow(number, dict(zip(columns, texts, strict=True)))
        else:
            fault = f"{len(texts)} texts, but {len(columns)} are needed"
            on_fault(f"{path}:{number}", fault, "separate the texts of a line with a tab")
