"""Texts from a file, one by one: txt, csv, tsv or jsonl, with errors that name the line."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from kdedge.errors import DataError, UsageError

csv.field_size_limit(1 << 27)


def read_texts(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The named columns of each row, in file order; a txt file has one text a line, for two columns tab-separated.

    tsv files are read without quoting, as GLUE writes them. Raises DataError that names file and line.
    """
    readers = {".txt": _txt, ".csv": _csv, ".tsv": _tsv, ".jsonl": _jsonl}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UsageError(
            "texts are read from txt, csv, tsv or jsonl files",
            str(path),
            "convert the file, or give the texts as arguments",
        )
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            yield from reader(path, stream, columns)
    except OSError as error:
        raise DataError(
            "the file cannot be read", f"{path}: {error.strerror}", "check its name"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(
            "the file is not UTF-8", _undecodable(path), "convert it to UTF-8 first"
        ) from error


def _undecodable(path: Path) -> str:
    """File, line and byte that are not UTF-8; the decoder itself only knows a place in its buffer."""
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                return f"{path}:{number}: byte {line[error.start]:#04x}, the {error.start + 1}th of its line"
    return str(path)


def _txt(path: Path, stream: IO[str], columns: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for number, line in enumerate(stream, 1):
        cells = (
            tuple(line.rstrip("\r\n").split("\t")) if len(columns) > 1 else (line.rstrip("\r\n"),)
        )
        if len(cells) != len(columns):
            raise DataError(
                f"each line holds {len(columns)} texts with a tab between",
                f"{path}:{number}: {len(cells)}",
                "mend the line",
            )
        yield cells


def _csv(path: Path, stream: IO[str], columns: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    return _table(path, csv.reader(stream, strict=True), columns)


def _tsv(path: Path, stream: IO[str], columns: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    return _table(path, csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE), columns)


def _table(path: Path, reader: Any, columns: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    try:
        header: list[str] = next(reader, [])
        missing = [name for name in columns if name not in header]
        if missing:
            raise DataError(
                f"the file has no column {', '.join(missing)}",
                f"{path}: {', '.join(header)}",
                "name the columns with --column and --pair-column",
            )
        places = [header.index(name) for name in columns]
        for row in filter(None, reader):  # a blank line is no row
            if len(row) != len(header):
                raise DataError(
                    f"each row has {len(header)} cells",
                    f"{path}:{reader.line_num}: {len(row)}",
                    "mend the row; texts with commas need quotes",
                )
            yield tuple(row[place] for place in places)
    except csv.Error as error:
        raise DataError(
            "the file is not well-formed", f"{path}:{reader.line_num}: {error}", "mend the quotes"
        ) from error


def _jsonl(path: Path, stream: IO[str], columns: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(
                "each line is one JSON object",
                f"{path}:{number}: {str(error)[:100]}",
                "mend the line",
            ) from error
        cells = tuple(
            cell
            for name in columns
            if isinstance(row, dict) and isinstance(cell := row.get(name), str)
        )
        if len(cells) != len(columns) or any(
            "\ud800" <= character <= "\udfff" for cell in cells for character in cell
        ):
            raise DataError(
                f"each line has the texts {', '.join(columns)}",
                f"{path}:{number}: {line.strip()[:80]}",
                "name the columns with --column and --pair-column",
            )
        yield cells
