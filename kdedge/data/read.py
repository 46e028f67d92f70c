"""Reads csv, tsv, jsonl and parquet into tables that remember the line of every row.

Nothing is guessed: "NA" stays a text, "007" stays "007", and a byte that does not fit the encoding is an error.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from kdedge.data.check import Faults, Table, shown
from kdedge.errors import DataError, MachineError, UsageError

# utf-32 first: its mark begins with that of utf-16.
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read_file(path: Path, encoding: str, wanted: tuple[str, ...]) -> Table:
    """The `wanted` columns of a file, by its ending; encoding does not matter to parquet.

    Raises DataError with file and line, UsageError for a file or an encoding there is not.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise UsageError(
            "data files are csv, tsv, jsonl or parquet",
            f"{path}",
            "convert the file, or give it the ending of what it is",
        )
    return reader(path, encoding, wanted)


def read_text(path: Path, encoding: str) -> str:
    """A whole file, decoded strictly by the first encoding that fits it of a list such as `utf-8, latin-1`.

    A byte order mark is taken off. Raises DataError that names line, byte and an encoding that fits.
    """
    content = _content(path)
    first, *others = (name.strip() for name in encoding.split(","))
    try:
        return _decoded(path, content, first)
    except DataError:
        for other in others:
            with suppress(DataError):
                return _decoded(path, content, other)
        raise


def _decoded(path: Path, content: bytes, encoding: str) -> str:
    mark = next((mark for mark in MARKS if content.startswith(mark)), b"")
    codec = _codec(encoding)
    if mark and not _same_family(codec, MARKS[mark]):
        raise DataError(
            f"{path}:1: the file is marked as {MARKS[mark]}",
            f"data.encoding = {encoding!r}",
            f'set data.encoding = "{MARKS[mark]}"',
        )
    _reject_unmarked_utf16(path, content, codec)
    try:
        return content.decode(codec).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise _misfit(path, content, encoding, error) from error
    except UnicodeError as error:
        raise DataError(
            f"{path} is not {encoding}",
            str(error),
            "set data.encoding to what the file is written in",
        ) from error


def _reject_unmarked_utf16(path: Path, content: bytes, codec: str) -> None:
    """Latin letters in utf-16 have a NUL byte each, and read as utf-8 without complaint."""
    nul_odd, nul_even = content[1::2].count(0), content[::2].count(0)
    if not codec.startswith(("utf-16", "utf-32")) and max(nul_odd, nul_even) > len(content) // 4:
        likely = "utf-16-le" if nul_odd > nul_even else "utf-16-be"
        found = f"{nul_odd + nul_even} of {len(content)} bytes are NUL"
        raise DataError(
            f"{path}:1: the file looks like {likely}, not {codec}",
            found,
            f'set data.encoding = "{likely}"',
        )


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            "a data file cannot be read",
            f"{shown(str(path))}: {reason}",
            "check the name and its rights",
        ) from error


def _codec(encoding: str) -> str:
    try:
        "".encode(encoding)
        return codecs.lookup(encoding).name
    except (LookupError, ValueError) as error:
        raise UsageError(
            "there is no such text encoding",
            f"data.encoding = {encoding!r}",
            'name one, such as "utf-8", "latin-1" or "utf-16"',
        ) from error


def _same_family(codec: str, marked: str) -> bool:
    return codec.replace("_", "-").startswith(marked)


def _misfit(path: Path, content: bytes, encoding: str, error: UnicodeDecodeError) -> DataError:
    line = content[: error.start].decode(encoding, "replace").count("\n") + 1
    byte = (
        f"byte 0x{content[error.start]:02x} at offset {error.start}"
        if error.start < len(content)
        else "an end in mid-character"
    )
    return DataError(
        f"{path}:{line}: {byte} is not {encoding}",
        error.reason,
        f'set data.encoding = "{_fitting(content)}", or mend the file',
    )


def _fitting(content: bytes) -> str:
    """The likeliest of three encodings; every file fits latin-1."""
    for encoding in (
        "utf-8",
        "cp1252" if any(0x80 <= byte < 0xA0 for byte in set(content)) else "latin-1",
    ):
        try:
            content.decode(encoding)
            return encoding
        except UnicodeDecodeError:
            continue
    return "latin-1"


def read_csv(path: Path, encoding: str, wanted: tuple[str, ...]) -> Table:
    """Comma-separated, quoted by `"`, with a header line."""
    return _delimited(path, encoding, wanted, delimiter=",", quoting=csv.QUOTE_MINIMAL)


def read_tsv(path: Path, encoding: str, wanted: tuple[str, ...]) -> Table:
    """Tab-separated with a header line; quotes are ordinary letters, for GLUE's own files hold unbalanced ones."""
    return _delimited(path, encoding, wanted, delimiter="\t", quoting=csv.QUOTE_NONE)


@contextmanager
def _long_fields() -> Iterator[None]:
    """The csv module stops at 131,072 characters; the check of texts has its own limit and a better message."""
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _delimited(
    path: Path, encoding: str, wanted: tuple[str, ...], *, delimiter: str, quoting: int
) -> Table:
    rows = csv.reader(
        io.StringIO(read_text(path, encoding), newline=""),
        delimiter=delimiter,
        quoting=quoting,
        strict=True,
    )  # type: ignore[arg-type]
    faults = Faults(str(path))
    kept: list[list[str]] = []
    lines: list[int] = []
    with _long_fields():
        try:
            header = _header(path, next(rows, []))
            places = [(name, header.index(name)) for name in wanted if name in header]
            for row in rows:
                if not row:
                    continue
                if len(row) != len(header):
                    faults.add(
                        f"{path}:{rows.line_num}",
                        f"{len(row)} fields, but the header has {len(header)} ({shown(row)})",
                        "quote or fill the fields",
                    )
                kept.append(row)
                lines.append(rows.line_num)
        except csv.Error as error:
            faults.add(f"{path}:{rows.line_num}", str(error), "mend the quotes and line ends")
    faults.raise_if_any()
    return Table(
        str(path), {name: [row[i] for row in kept] for name, i in places}, tuple(header), lines
    )


def _header(path: Path, header: list[str]) -> list[str]:
    if not header:
        raise DataError(
            f"{path}:1: no header line",
            "the first line is empty",
            "begin the file with the names of its columns",
        )
    twice = (
        sorted({name for name in header if header.count(name) > 1})
        if len(set(header)) < len(header)
        else []
    )
    if twice:
        raise DataError(
            f"{path}:1: a column stands twice",
            ", ".join(map(shown, twice[:5])),
            "give every column a name of its own",
        )
    return header


def read_jsonl(path: Path, encoding: str, wanted: tuple[str, ...]) -> Table:
    """One JSON object a line; blank lines are passed over."""
    faults = Faults(str(path))
    rows: list[dict[str, Any]] = []
    lines: list[int] = []
    for number, line in enumerate(read_text(path, encoding).split("\n"), 1):
        if line and not line.isspace():
            rows.append(_json_object(f"{path}:{number}", line, faults))
            lines.append(number)
    faults.raise_if_any()
    names = tuple(dict.fromkeys(name for row in rows for name in row))
    columns: dict[str, Sequence[Any]] = {
        name: [row.get(name) for row in rows] for name in wanted if name in names
    }
    return Table(str(path), columns, names, lines)


def _json_object(where: str, line: str, faults: Faults) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        faults.add(where, f"not JSON: {error} ({shown(line[:80])})", "write one JSON object a line")
        return {}
    if isinstance(row, dict):
        return row
    faults.add(
        where, f"not a JSON object ({shown(row)})", 'write it as {"text": ..., "label": ...}'
    )
    return {}


def read_parquet(path: Path, encoding: str, wanted: tuple[str, ...]) -> Table:
    """Any parquet file; rows are counted from 1."""
    pyarrow = _pyarrow()
    content = _content(path)
    try:
        file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(content))
        names = tuple(file.schema_arrow.names)
        table = file.read(columns=[name for name in wanted if name in names])
        columns = {name: table.column(name).to_pylist() for name in table.column_names}
        rows = range(1, file.metadata.num_rows + 1)
    # pyarrow meets a damaged file with many kinds of error.
    except Exception as error:
        raise DataError(
            f"{path} is not a parquet file that can be read",
            shown(str(error)),
            "write it again, or give the file the ending of what it is",
        ) from error
    return Table(str(path), columns, names, rows, unit=", row ")


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MachineError(
            "parquet files need pyarrow",
            "it is not installed",
            'pip install "kdedge-toolkit[train]"',
        ) from error
    return pyarrow


READERS: dict[str, Callable[[Path, str, tuple[str, ...]], Table]] = {
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".jsonl": read_jsonl,
    ".parquet": read_parquet,
}
