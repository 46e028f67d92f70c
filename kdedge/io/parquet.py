"""Read parquet files; needs pyarrow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdedge.errors import DataError, MachineError, UsageError
from kdedge.io.faults import shown
from kdedge.io.table import Table


def read_parquet(path: Path, columns: Sequence[str]) -> Table:
    """Read the named columns of a parquet file; the arguments are those of `read_table`."""
    file, names = _opened(path)
    return _read(path, file, names, columns)


def read_plain_parquet(path: Path, columns: Sequence[str]) -> Table:
    """Read the columns of a parquet file that hold texts, numbers, or lists of them.

    Others, such as dates, bytes and records, can be neither a text nor a label. Some of them cannot
    be read: Python has no dates after the year 9999.

    Args:
        path: The file.
        columns: Columns that are read in any case.
    """
    file, names = _opened(path)
    kinds = zip(names, file.schema_arrow.types, strict=True)
    plain = [name for name, kind in kinds if _is_plain(kind)]
    return _read(path, file, names, [*plain, *columns])


def _read(path: Path, file: Any, names: tuple[str, ...], columns: Sequence[str]) -> Table:
    """Read columns of an open pyarrow.parquet.ParquetFile; missing ones are left out."""
    wanted = [name for name in dict.fromkeys(columns) if name in names]
    counts = Counter(names)
    repeated = [name for name in wanted if counts[name] > 1]
    if repeated:
        raise DataError(
            f"{path}: two columns have the same name",
            ", ".join(map(shown, repeated[:5])),
            "give every column its own name",
        )
    try:
        table = file.read(columns=wanted)
        values = {name: table.column(name).to_pylist() for name in wanted}
        rows = range(1, file.metadata.num_rows + 1)
    except Exception as error:  # a damaged file raises errors of many classes
        raise _damaged_parquet(path, error) from error
    return Table(str(path), values, names, rows, unit=", row ")


def _is_plain(kind: Any) -> bool:
    """Return whether a pyarrow.DataType is that of a text, a number, or a list of them."""
    from pyarrow import types

    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        kind = kind.value_type
    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return True
    if types.is_boolean(kind) or types.is_null(kind):
        return True
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))


def _opened(path: Path) -> tuple[Any, tuple[str, ...]]:
    """Return a pyarrow.parquet.ParquetFile, and the names of its columns."""
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
    except OSError as error:
        raise UsageError(
            "a file cannot be read",
            f"{path}: {error.strerror}",
            "check its name and its access rights",
        ) from error
    try:
        file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(content))
        return file, tuple(file.schema_arrow.names)
    except Exception as error:  # a damaged file raises errors of many classes
        raise _damaged_parquet(path, error) from error


def _damaged_parquet(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path} is not a parquet file that can be read",
        shown(str(error)),
        "write it again, or give the file the ending of its type",
    )
