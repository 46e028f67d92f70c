"""Read parquet files; needs pyarrow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kdedge.errors import DataError, MachineError, UsageError
from kdedge.io.faults import shown
from kdedge.io.table import Table


def read_parquet(path: Path, columns: Sequence[str] | None) -> Table:
    """Read the named columns of a parquet file, or all; arguments are those of `read_table`."""
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
        wanted = names if columns is None else columns
        table = file.read(columns=[name for name in wanted if name in names])
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
