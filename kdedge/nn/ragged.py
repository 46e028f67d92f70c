"""Ragged integer arrays: many lists of different lengths in one buffer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import overload

import numpy as np


class RaggedArray(Sequence[list[int]]):
    """N lists of integers in one array.

    Attributes:
        values: The integers of all lists, list after list.
        lengths: *Shape:* (N,)
    """

    def __init__(self, values: np.ndarray, lengths: np.ndarray) -> None:
        self.values = values
        self.lengths = lengths
        self._starts = np.concatenate([[0], np.cumsum(lengths)])

    @classmethod
    def of(cls, lists: Sequence[list[int]]) -> RaggedArray:
        """Build from N lists, with the smallest integer type that holds all numbers."""
        lengths = np.array([len(numbers) for numbers in lists], np.int64)
        values = np.fromiter(chain.from_iterable(lists), np.int32, int(lengths.sum()))
        smallest = np.min_scalar_type(int(values.max(initial=0)))
        return cls(values.astype(smallest), lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, index: int) -> list[int]: ...
    @overload
    def __getitem__(self, index: slice) -> list[list[int]]: ...
    def __getitem__(self, index: int | slice) -> list[int] | list[list[int]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = range(len(self))[index]
        numbers: list[int] = self.values[self._starts[i] : self._starts[i + 1]].tolist()
        return numbers

    def take(self, rows: np.ndarray | Sequence[int]) -> RaggedArray:
        """Return the lists at `rows`, in that order."""
        rows = np.asarray(rows, np.int64)
        lengths = self.lengths[rows]
        # Where each list begins in `values`, minus where it will begin in the result.
        shifts = self._starts[rows] - (np.cumsum(lengths) - lengths)
        positions = np.arange(lengths.sum()) + np.repeat(shifts, lengths)
        return RaggedArray(self.values[positions], lengths)

    def padded(self, fill: int) -> np.ndarray:
        """Return the N lists as one array, padded on the right. *Shape:* (N, longest) int64"""
        longest = int(self.lengths.max(initial=0))
        result = np.full((len(self), longest), fill, np.int64)
        result[np.arange(longest) < self.lengths[:, None]] = self.values
        return result


def concatenate_ragged(parts: Sequence[RaggedArray]) -> RaggedArray:
    """Return the lists of all parts, in order."""
    values = np.concatenate([part.values for part in parts])
    lengths = np.concatenate([part.lengths for part in parts])
    return RaggedArray(values, lengths)
