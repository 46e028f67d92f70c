"""Read csv, tsv, jsonl, txt and parquet files; every row knows its line.

Values are not converted: "NA" stays a text and "007" stays "007".
"""

from __future__ import annotations

import csv
import difflib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from kdedge.errors import DataError, MachineError, UsageError
from kdedge.io.encoding import open_text
from kdedge.io.faults import Faults, raise_fault, shown, string_fault, text_fault

if TYPE_CHECKING:
    from _csv import Reader as CsvReader

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
"""Files that have named columns."""
STREAMED_SUFFIXES = (".csv", ".tsv", ".jsonl", ".txt")
"""Files that are read row by row."""

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
"""Characters that may separate the columns of a csv file."""

OnFault = Callable[[str, str, str], None]
"""Receives where a fault is, what it is, and its remedy."""


class SourceRow(NamedTuple):
    """One row: its last line in the file, counted from 1, and its values by column."""

    line: int
    cells: dict[str, Any]


@dataclass(frozen=True)
class Table:
    """N rows as they stand in their source, not yet checked.

    Attributes:
        origin: The name of the source in messages: a file, or a split of a hub data set.
        columns: The requested columns that exist, N values each; None if a value is missing.
        names: Every column that exists.
        places: N line or row numbers, counted from 1, or N file names.
        unit: Stands between origin and place in messages.
        label_names: Label names by index, if the source itself has them.
    """

    origin: str
    columns: Mapping[str, Sequence[Any]]
    names: tuple[str, ...]
    places: Sequence[int] | Sequence[str]
    unit: str = ":"
    label_names: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.places)

    def where(self, row: int) -> str:
        """Return `train.csv:7`, `train.parquet, row 7`, or the file that holds only this row."""
        place = self.places[row]
        return place if isinstance(place, str) else f"{self.origin}{self.unit}{place}"

    def column(self, name: str, option: str) -> Sequence[Any]:
        """Return a column. Raises UsageError that names the nearest column and `option`."""
        if name in self.columns:
            return self.columns[name]
        raise missing_column(self.origin, name, self.names, option)


def missing_column(
    origin: str, name: str, names: Sequence[str], option: str | None = None
) -> UsageError:
    """Return the error for a column that no row has.

    It is a UsageError (exit code 2), because the option names another column than the file has;
    the rows themselves may be sound. A row that lacks a column of the others is a DataError.

    Args:
        origin: The file or argument.
        name: The column.
        names: The columns that exist.
        option: The option or recipe key that names the column; None if the name is fixed.
    """
    place = f" ({option})" if option else ""
    existing = ", ".join(shown(other) for other in names[:20]) or "none"
    hint = _column_hint(name, names, option)
    return UsageError(f"{origin}: no column {shown(name)}{place}", f"columns: {existing}", hint)


def _column_hint(name: str, names: Sequence[str], option: str | None) -> str:
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if option is None:
        renamed = f"column {shown(near[0])}" if near else "a column"
        return f"rename {renamed} to {shown(name)}"
    if len(names) == 1 and _delimiters_in(names[0]) and option.startswith("data."):
        delimiter = shown(_delimiters_in(names[0])[0])
        return f"the columns may be separated otherwise: set data.delimiter = {delimiter}"
    if near:
        sign = " " if option.startswith("--") else " = "
        return f"did you mean {option}{sign}{shown(near[0])}?"
    return f"set {option} to one of these"


def read_table(
    path: Path, columns: Sequence[str], encoding: str = "utf-8", delimiter: str | None = None
) -> Table:
    """Read the named columns of a csv, tsv, jsonl or parquet file.

    Args:
        path: The file.
        columns: The columns to read.
        encoding: As for `open_text`.
        delimiter: As for `iter_rows`.

    Raises:
        DataError: Lists up to ten malformed rows with file and line.
        UsageError: If the file type or the encoding is unknown, or the file cannot be read.
    """
    _require_suffix(path, TABLE_SUFFIXES)
    if path.suffix.lower() == ".parquet":
        return _read_parquet(path, columns)
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


def stream_texts(
    path: Path, columns: Sequence[str], options: Sequence[str] = ("--column", "--pair-column")
) -> Iterator[tuple[str, ...]]:
    """Stream the named columns of a csv, tsv, jsonl or txt file, one tuple of texts a row.

    Args:
        path: The file.
        columns: The columns to read.
        options: The options that name them, for messages.

    Raises:
        DataError: If the file does not exist, or a row is malformed or lacks a text.
        UsageError: If the file type is unknown, or the first row lacks a column.
    """
    _require_suffix(path, STREAMED_SUFFIXES)
    if not path.exists():
        raise DataError("the file cannot be read", f"{path} does not exist", "check its name")
    names: tuple[str, ...] = ()
    for line, cells in iter_rows(path, columns):
        names = names or tuple(cells)
        for name, option in zip(columns, options, strict=False):
            if name not in names:
                raise missing_column(str(path), name, names, option)
            fault = string_fault(cells.get(name))
            if fault:
                raise_fault(f"{path}:{line}", f"column {shown(name)} {fault[0]}", fault[1])
        yield tuple(cells[name] for name in columns)


def checked_texts(
    table: Table,
    column: str,
    option: str,
    faults: Faults,
    fault_of: Callable[[Any], tuple[str, str] | None] = text_fault,
) -> list[str]:
    """Return the N texts of a column unchanged; their faults go to `faults`.

    Raises UsageError that names `option` if the column does not exist.
    """
    texts = list(table.column(column, option))
    for row, text in enumerate(texts):
        fault = fault_of(text)
        if fault:
            faults.add(table.where(row), f"column {shown(column)} {fault[0]}", fault[1])
    return texts


def iter_rows(
    path: Path,
    columns: Sequence[str],
    encoding: str = "utf-8",
    on_fault: OnFault = raise_fault,
    delimiter: str | None = None,
) -> Iterator[SourceRow]:
    """Stream every column of a csv, tsv, jsonl or txt file.

    `columns` only guides the choice of the delimiter and names the texts of a txt line.

    Args:
        path: The file. tsv files have no quotes, as in GLUE.
        columns: The columns that the caller needs. A txt line holds one text for each, with tabs
            between them.
        encoding: As for `open_text`.
        on_fault: Receives malformed rows, which are left out; by default the first one raises.
        delimiter: Separates the columns of a csv file; None: recognised from the header.

    Raises:
        DataError: If the header or a byte is malformed.
        UsageError: If the file type or the encoding is unknown, or the file cannot be read.
    """
    _require_suffix(path, STREAMED_SUFFIXES)
    suffix = path.suffix.lower()
    with open_text(path, encoding, newline="" if suffix == ".csv" else "\n") as stream:
        if suffix == ".jsonl":
            yield from _jsonl_rows(path, stream, on_fault)
        elif suffix == ".txt":
            yield from _txt_rows(path, stream, columns, on_fault)
        else:
            reader = _csv_reader(path, stream, columns, delimiter)
            yield from _delimited_rows(path, reader, on_fault)


def _require_suffix(path: Path, suffixes: tuple[str, ...]) -> None:
    if path.suffix.lower() not in suffixes:
        endings = ", ".join(suffix[1:] for suffix in suffixes)
        raise UsageError(
            "this file type is not supported",
            str(path),
            f"convert the file to one of {endings}",
        )


def _csv_reader(
    path: Path, stream: TextIO, columns: Sequence[str], delimiter: str | None
) -> CsvReader:
    if path.suffix.lower() == ".tsv":
        # GLUE's own files hold unbalanced quotes, so a quote is an ordinary letter.
        return csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)
    first_line = stream.readline()
    delimiter = delimiter or find_delimiter(first_line, columns)
    # strict: a stray quote is an error, and does not join lines silently.
    return csv.reader(chain([first_line], stream), delimiter=delimiter, strict=True)


def find_delimiter(header: str, columns: Sequence[str] = ()) -> str:
    """Return what separates the columns of a csv file, judged by its header line.

    That is the first of `DELIMITERS` with which the header has all `columns`, else the first
    that the header holds outside of quotes, else a comma.
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


def _delimiters_in(name: str) -> list[str]:
    return [delimiter for delimiter in DELIMITERS if delimiter in name]


def _delimited_rows(path: Path, reader: CsvReader, on_fault: OnFault) -> Iterator[SourceRow]:
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
                "fill in the fields, or quote texts that hold the separator",
            )


@contextmanager
def _long_fields() -> Iterator[None]:
    """Lift the csv module's limit of 131,072 characters, which holds for the whole process."""
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
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise DataError(
            f"{path}:1: two columns have the same name",
            ", ".join(map(shown, repeated[:5])),
            "give every column its own name",
        )
    return header


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
        if len(texts) == len(columns):
            yield SourceRow(number, dict(zip(columns, texts, strict=True)))
        else:
            fault = f"{len(texts)} texts, but {len(columns)} are needed"
            on_fault(f"{path}:{number}", fault, "separate the texts of a line with a tab")


def _read_parquet(path: Path, columns: Sequence[str]) -> Table:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MachineError(
            "parquet files need pyarrow",
            "it is not installed",
            'pip install "kdedge-toolkit[train]"',
        ) from error
    try:
        content = path.read_bytes()
        file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(content))
        names = tuple(file.schema_arrow.names)
        table = file.read(columns=[name for name in columns if name in names])
        values = {name: table.column(name).to_pylist() for name in table.column_names}
        rows = range(1, file.metadata.num_rows + 1)
    except OSError as error:
        if error.strerror is None:  # pyarrow's own errors have none
            raise _damaged_parquet(path, error) from error
        raise UsageError(
            "a file cannot be read",
            f"{path}: {error.strerror}",
            "check its name and its access rights",
        ) from error
    except Exception as error:  # a damaged file raises errors of many classes
        raise _damaged_parquet(path, error) from error
    return Table(str(path), values, names, rows, unit=", row ")


def _damaged_parquet(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path} is not a parquet file that can be read",
        shown(str(error)),
        "write it again, or give the file the ending of its type",
    )
