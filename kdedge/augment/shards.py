"""Produce the texts of one source in shards: small files that an interrupted run keeps.

A shard depends only on the seed, the source and the shard's number. Several processes produce
one shard each; then all of them read the shards in order.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kdedge.augment.source import AugmentedText, TextSource
from kdedge.run.processes import barrier, processes, rank

TEXT_FIELDS = pa.schema(
    [
        ("text", pa.large_string()),
        ("pair", pa.large_string()),
        ("row", pa.int64()),
        ("mean_nll", pa.float32()),
    ]
)
"""The fields of `AugmentedText`, in order."""

MIN_SHARDS = 3
"""An empty shard ends a source only after this many shards."""

PASS_SALT = 2
"""Separates the random numbers that shuffle a pass from those that produce a shard."""


@dataclass(frozen=True)
class ShardPlan:
    """The shards of one source, and the rows from which each one is produced.

    Attributes:
        folder: Where the shard files are.
        rows: The rows that the source may use. *Shape:* (N,)
        max_attempts: Most rows to use in all shards together.
    """

    source: TextSource
    folder: Path
    rows: np.ndarray
    max_attempts: int
    shard_size: int
    seed: int

    @property
    def num_shards(self) -> int:
        return math.ceil(self.max_attempts / self.shard_size)

    def path(self, number: int) -> Path:
        return self.folder / f"{self.source.origin}-{number:05d}.parquet"

    def read(self) -> Iterator[pa.Table]:
        """Yield the shards in order, each produced first if its file is missing.

        The metadata of a table holds `attempts` (rows used) and `seconds`.
        """
        for number in range(self.num_shards):
            if number % processes() == 0:
                self._produce_if_missing(number + rank())
                barrier()
            shard = pq.read_table(self.path(number))
            yield shard
            if number + 1 >= MIN_SHARDS and not len(shard):
                return

    def _produce_if_missing(self, number: int) -> None:
        if number >= self.num_shards or self.path(number).exists():
            return
        start = time.monotonic()
        rows = self._rows_of(number)
        texts = self.source.produce(rows, self._rng(number))
        metadata = {"attempts": str(len(rows)), "seconds": str(time.monotonic() - start)}
        columns = [[getattr(text, name) for text in texts] for name in TEXT_FIELDS.names]
        table = pa.table(columns, schema=TEXT_FIELDS.with_metadata(metadata))
        part = self.path(number).with_suffix(".part")
        pq.write_table(table, part, compression="zstd")
        part.replace(self.path(number))

    def _rows_of(self, number: int) -> np.ndarray:
        first = number * self.shard_size
        last = first + self.shard_size
        if not self.source.reuses_rows:
            last = min(last, self.max_attempts)
        return self._in_turn(np.arange(first, last))

    def _in_turn(self, positions: np.ndarray) -> np.ndarray:
        """Map positions in an endless sequence of shuffled passes to row numbers."""
        passes, offsets = np.divmod(positions, len(self.rows))
        chosen = np.empty(len(positions), np.int64)
        for number in np.unique(passes).tolist():
            shuffled = self._rng(PASS_SALT, number).permutation(self.rows)
            here = passes == number
            chosen[here] = shuffled[offsets[here]]
        return chosen

    def _rng(self, *salt: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *salt, *self.source.origin.encode()])


def read_texts(shard: pa.Table) -> Iterator[AugmentedText]:
    """Yield the texts of a shard."""
    columns = [shard.column(name).to_pylist() for name in TEXT_FIELDS.names]
    return map(AugmentedText, *columns)
