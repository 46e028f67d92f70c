"""Unlabelled texts of the user's own, as a source like the others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kdedge.augment.source import AugmentedText
from kdedge.errors import DataError, UsageError
from kdedge.io.faults import Faults
from kdedge.io.tabular import checked_texts, read_table
from kdedge.recipe import DataConfig, PoolConfig


@dataclass(frozen=True)
class PoolSource:
    """The source `pool`: N texts, pairs or None."""

    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None

    origin = "pool"
    renewable = False

    @property
    def starts(self) -> int:
        return len(self.texts)

    def make(self, rows: np.ndarray, chance: np.random.Generator) -> list[AugmentedText]:
        """The texts at `rows`; they belong to no training example."""
        return [
            AugmentedText(self.texts[row], self.pairs[row] if self.pairs else None, -1)
            for row in rows
        ]


def read_pool(recipe: PoolConfig, data: DataConfig) -> PoolSource:
    """The texts of a pool file, checked row by row, cut to `data.first_words` as the labelled ones are.

    Raises DataError with file and line, UsageError where the second text of pairs is not named.
    """
    if (recipe.pair is None) != (data.pair is None):
        have, lack = (
            ("single texts", "augment.pool.pair is set")
            if data.pair is None
            else ("pairs", "augment.pool.pair is not set")
        )
        raise UsageError(
            "the pool must hold what the task is made of",
            f"the task has {have}, {lack}",
            "name the pool's columns like the task's",
        )
    wanted = tuple(column for column in (recipe.text, recipe.pair) if column)
    table = read_table(Path(recipe.file), wanted, data.encoding)
    if not len(table):
        raise DataError(
            "the pool is empty", recipe.file, "fill it, or take [augment.pool] out of the recipe"
        )
    faults = Faults(table.origin)
    sides = [
        checked_texts(table, column, f"augment.pool.{key}", faults)
        for key, column in (("text", recipe.text), ("pair", recipe.pair))
        if column
    ]
    faults.raise_if_any()
    cut = [
        tuple(
            " ".join(text.split(None, data.first_words)[: data.first_words])
            if data.first_words
            else text
            for text in side
        )
        for side in sides
    ]
    return PoolSource(cut[0], cut[1] if len(cut) == 2 else None)
