"""Read the user's own unlabelled texts as a source."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kdedge.augment.source import AugmentedText
from kdedge.data.task import Task
from kdedge.errors import DataError, UsageError
from kdedge.io.faults import Faults
from kdedge.io.table import Table, checked_texts
from kdedge.io.tabular import TEXT_SUFFIXES, read_table
from kdedge.recipe import DataConfig, PoolConfig


@dataclass(frozen=True)
class PoolSource:
    """The source `pool`: N texts; `pairs` are N second texts or None."""

    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None

    origin = "pool"
    reuses_rows = False

    @property
    def num_rows(self) -> int:
        return len(self.texts)

    def content_hash(self) -> str:
        """Return the SHA-256 of the texts, in order."""
        document = json.dumps([self.texts, self.pairs])
        return hashlib.sha256(document.encode()).hexdigest()

    def produce(self, rows: np.ndarray, rng: np.random.Generator) -> list[AugmentedText]:
        """Return the pool's texts at `rows`; they have no training example (row -1)."""
        texts = []
        for row in rows:
            pair = self.pairs[row] if self.pairs else None
            texts.append(AugmentedText(self.texts[row], pair, -1))
        return texts


def build_pool(config: PoolConfig, data: DataConfig, task: Task) -> PoolSource:
    """Read the pool file, or take the training texts beyond `data.limit`.

    Raises:
        DataError: If the file is empty or a text is unusable; names file and line.
        UsageError: If the pool does not fit the task, or no text lies beyond the limit.
    """
    if config.file is not None:
        return read_pool(Path(config.file), config, data)
    if task.beyond_limit is None:
        raise UsageError(
            "no training text lies beyond data.limit",
            f"data.limit = {data.limit}, {len(task.train)} training texts",
            "lower data.limit, or name a file in augment.pool.file",
        )
    return PoolSource(task.beyond_limit.texts, task.beyond_limit.pairs)


def read_pool(file: Path, config: PoolConfig, data: DataConfig) -> PoolSource:
    """Read and check the texts of a pool file; `data.first_words` cuts them like labelled texts.

    Raises:
        DataError: If the file is empty or a text is unusable; names file and line.
        UsageError: If the pool has pairs and the task has none, or the other way round.
    """
    if data.pair is None and config.pair is not None:
        _reject_columns("the task has single texts, augment.pool.pair is set")
    if data.pair is not None and config.pair is None:
        _reject_columns("the task has pairs, augment.pool.pair is not set")
    columns = (config.text,) if config.pair is None else (config.text, config.pair)
    table = read_table(file, columns, data.encoding, suffixes=TEXT_SUFFIXES)
    if not len(table):
        raise DataError(
            "the pool is empty", str(file), "add texts, or remove [augment.pool] from the recipe"
        )
    faults = Faults(table.origin)
    texts = _read_column(table, config.text, "text", data.first_words, faults)
    pairs = None
    if config.pair is not None:
        pairs = _read_column(table, config.pair, "pair", data.first_words, faults)
    faults.raise_if_any()
    return PoolSource(texts, pairs)


def _reject_columns(detail: str) -> None:
    raise UsageError(
        "the pool must have single texts or pairs, like the task",
        detail,
        "name the pool's columns like the task's",
    )


def _read_column(
    table: Table, column: str, key: str, first_words: int | None, faults: Faults
) -> tuple[str, ...]:
    texts = checked_texts(table, column, f"augment.pool.{key}", faults)
    if first_words and not faults.count:
        texts = [" ".join(text.split(None, first_words)[:first_words]) for text in texts]
    return tuple(texts)
