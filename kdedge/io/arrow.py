"""Write and memory-map tables in Arrow's file format, uncompressed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import pyarrow as pa

ROWS = 8192
"""Rows of a record batch."""


def blocks_of(table: pa.Table) -> Iterator[pa.Table]:
    """Yield a table in blocks of `ROWS` rows; an empty table is one empty block."""
    for start in range(0, max(1, len(table)), ROWS):
        yield table.slice(start, ROWS)


def write_table(blocks: Iterable[pa.Table], path: Path) -> None:
    """Write one record batch per block, at least one.

    Equal rows give equal bytes, even if the chunks within a block differ.
    """
    remaining = iter(blocks)
    first = next(remaining)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, first.schema) as writer:
        for block in chain([first], remaining):
            # A slice is written with its neighbours' bytes as padding. Concatenating it with an
            # empty table copies it first.
            copied = pa.concat_tables([block, block.schema.empty_table()]).combine_chunks()
            writer.write_table(copied)


def map_table(path: Path) -> pa.Table:
    """Memory-map a table that `write_table` wrote."""
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
