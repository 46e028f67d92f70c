"""Read the rows of csv and tsv files with their line numbers."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from kdedge.errors import DataError
from kdedge.io.faults import OnFault, shown

if TYPE_CHECKING:
    from _csv import Reader as CsvReader

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
"""Characters that may separate the columns of a csv file."""


class SourceRow(NamedTuple):
    """One row: its last line in the file, counted from 1, and its values by column."""

    line: int
    cells: dict[str, Any]


def find_delimiter(header: str, columns: Sequence[str] = ()) -> str:
    """Guess the delimiter of a csv file from its header line.

    It is the first of `DELIMITERS` with which the header has all `columns`, else the first
    that occurs in the header outside of quotes, else a comma.
    """
    names = {delimiter: _header_names(header, delimiter) for delimiter in DELIMITERS}
    for delimiter in DELIMITERS:
        if columns and set(columns) <= set(names[delimiter]):
            return delimiter
    for delimiter in DELIMITERS:
        if len(names[delimiter]) > 1:
            return delimiter
    return ","


def _header_names(header: str, delimiter: str) -> list[str]:
    with _long_fields():
        return next(csv.reader([header.rstrip("\r\n")], delimiter=delimiter), [])


def delimited_rows(
    path: Path, stream: TextIO, columns: Sequence[str], delimiter: str | None, on_fault: OnFault
) -> Iterator[SourceRow]:
    """Stream every row of a csv or tsv file; the arguments are those of `iter_rows`."""
    reader = _csv_reader(path, stream, columns, delimiter)
    header: list[str] | None = None
    while True:
        try:
            with _long_fields():
                values = next(reader, None)
        except csv.Error as error:
            on_fault(f"{path}:{reader.line_num}", str(error), "correct the quotes and line ends")
            return
        if header is None:
            header = _checked_header(path, values)
        elif values is None:
            return
        elif len(values) == len(header):
            yield SourceRow(reader.line_num, dict(zip(header, values, strict=True)))
        elif values:  # a blank line is no row
            on_fault(
                f"{path}:{reader.line_num}",
                f"{len(values)} fields, but the header has {len(header)}",
                _fields_hint(reader.dialect.delimiter, len(header)),
            )


def _fields_hint(separator: str, columns: int) -> str:
    hint = f"quote texts that hold the separator {separator!r}"
    if columns == 1:
        return f"{hint}, or save the texts as a txt file, one a line"
    return f"fill in the fields, or {hint}"


def _csv_reader(
    path: Path, stream: TextIO, columns: Sequence[str], delimiter: str | None
) -> CsvReader:
    if path.suffix.lower() == ".tsv":
        # GLUE's own files hold unbalanced quotes, so a quote is an ordinary character.
        return csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)
    first_line = stream.readline()
    delimiter = delimiter or find_delimiter(first_line, columns)
    # strict: a stray quote is an error, and does not join lines silently.
    return csv.reader(chain([first_line], stream), delimiter=delimiter, strict=True)


@contextmanager
def _long_fields() -> Iterator[None]:
    """Lift the csv module's process-wide limit of 131,072 characters per field."""
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _checked_header(path: Path, header: list[str] | None) -> list[str]:
    if not header:
        raise DataError(
            f"{path}:1: no header line",
            "the first line is empty",
            "begin the file with the names of its columns",
        )
    repeated = sorted(name for name, count in Counter(header).items() if count > 1)
    if repeated:
        raise DataError(
            f"{path}:1: two columns have the same name",
            ", ".join(map(shown, repeated[:5])),
            "give every column its own name",
        )
    return header
