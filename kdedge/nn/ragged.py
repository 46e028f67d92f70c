"""Ragged integer arrays: many lists of different lengths in one buffer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import overload

import numpy as np


class RaggedArray(Sequence[list[int]]):
    """N lists of whole numbers, each of its own length, in one array."""

    def __init__(self, values: np.ndarray, lengths: np.ndarray) -> None:
        """values: all numbers, list after list. lengths: (N,)."""
        self.values, self.lengths = values, lengths
        self._starts = np.concatenate([[0], np.cumsum(lengths)])

    @classmethod
    def of(cls, runs: Sequence[list[int]]) -> RaggedArray:
        """From N lists."""
        lengths = np.array([len(run) for run in runs], np.int64)
        values = np.fromiter(chain.from_iterable(runs), np.int32, int(lengths.sum()))
        # A mask fits into 8 bits, the pieces of most vocabularies into 16.
        return cls(values.astype(np.min_scalar_type(int(values.max(initial=0)))), lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, index: int) -> list[int]: ...
    @overload
    def __getitem__(self, index: slice) -> list[list[int]]: ...
    def __getitem__(self, index: int | slice) -> list[int] | list[list[int]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        run: list[int] = self.values[self._starts[place] : self._starts[place + 1]].tolist()
        return run


def concatenate_ragged(parts: Sequence[RaggedArray]) -> RaggedArray:
    """The lists of all parts, in order."""
    return RaggedArray(
        np.concatenate([part.values for part in parts]),
        np.concatenate([part.lengths for part in parts]),
    )
