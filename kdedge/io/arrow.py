"""Tables on disk whose columns are mapped, not held in memory: Arrow's file format, uncompressed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import pyarrow as pa

ROWS = 8192
"""Rows of a record batch."""


def blocks_of(table: pa.Table) -> Iterator[pa.Table]:
    """A table in pieces of so many rows, one of them at least."""
    return (table.slice(start, ROWS) for start in range(0, max(1, len(table)), ROWS))


def write_table(blocks: Iterable[pa.Table], path: Path) -> None:
    """Write one record batch for each block (of one or more); the same bytes for the same rows, however the chunks of a block lie."""
    rest = iter(blocks)
    first = next(rest)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, first.schema) as writer:
        for block in chain([first], rest):
            # A slice alone would be written with bytes of its neighbours as padding; with an empty table beside it, it is copied.
            writer.write_table(
                pa.concat_tables([block, block.schema.empty_table()]).combine_chunks()
            )


def map_table(path: Path) -> pa.Table:
    """A table that `write_table` wrote, read from the disk where it is asked for."""
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
