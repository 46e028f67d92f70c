"""Tables on disk whose columns are mapped, not held in memory: Arrow's file format, uncompressed."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

ROWS = 8192
"""Rows of a record batch."""


def write_table(table: pa.Table, path: Path) -> None:
    """The same bytes for the same rows, however the table's chunks lie; one batch is copied at a time."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        for start in range(0, len(table), ROWS):
            writer.write_table(table.slice(start, ROWS).combine_chunks())


def map_table(path: Path) -> pa.Table:
    """A table that `write_table` wrote, read from the disk where it is asked for."""
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
