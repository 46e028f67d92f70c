"""Hold many strings in few Arrow buffers, in memory or mapped from a file.

A million short texts as Python objects take ten times the memory of their characters.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

BLOCK = 8192


class TextColumn(Sequence[str]):
    """N strings with the interface of a tuple; slices and concatenations share its buffers."""

    def __init__(self, column: pa.Array | pa.ChunkedArray) -> None:
        chunked = column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])
        self.column = chunked.cast(pa.large_string())
        if self.column.null_count:
            raise ValueError(f"{self.column.null_count} of {len(self.column)} strings are missing")

    @classmethod
    def of(cls, texts: Iterable[str]) -> TextColumn:
        """Return `texts` itself if it is a TextColumn, else a copy."""
        if isinstance(texts, TextColumn):
            return texts
        remaining = iter(texts)
        chunks = []
        while block := list(islice(remaining, BLOCK)):
            chunks.append(pa.array(block, pa.large_string()))
        return cls(pa.chunked_array(chunks, pa.large_string()))

    def __len__(self) -> int:
        return len(self.column)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> TextColumn: ...
    def __getitem__(self, index: int | slice) -> str | TextColumn:
        if not isinstance(index, slice):
            row = range(len(self))[int(index)]  # raises IndexError, and counts from the end
            return str(self.column[row].as_py())
        start, stop, step = index.indices(len(self))
        if step != 1:
            return self.take(np.arange(start, stop, step))
        return TextColumn(self.column.slice(start, max(0, stop - start)))

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), BLOCK):
            yield from self.column.slice(start, BLOCK).to_pylist()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, TextColumn):
            return bool(self.column.equals(other.column))
        if not isinstance(other, Sequence) or len(self) != len(other):
            return False
        return all(text == expected for text, expected in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"TextColumn({list(self[:3])}, {len(self)} texts)"

    def __add__(self, other: Sequence[str]) -> TextColumn:
        chunks = [*self.column.chunks, *TextColumn.of(other).column.chunks]
        return TextColumn(pa.chunked_array(chunks, pa.large_string()))

    def among(self, texts: Sequence[str]) -> np.ndarray:
        """Return whether each string occurs in `texts`. *Shape:* (N,) bool"""
        return np.asarray(pc.is_in(self.column, pa.array(texts, pa.large_string())))

    def take(self, rows: np.ndarray) -> TextColumn:
        """Return the strings at `rows`, in that order.

        Arrow's own `take` would first join all chunks in memory. This one takes from each chunk,
        and then restores the order.
        """
        rows = np.asarray(rows, np.int64)
        chunk_starts = np.cumsum([0, *map(len, self.column.chunks)])
        chunk_of_row = np.searchsorted(chunk_starts, rows, "right") - 1
        by_chunk = np.argsort(chunk_of_row, kind="stable")
        boundaries = np.flatnonzero(np.diff(chunk_of_row[by_chunk])) + 1
        taken = [pa.array([], pa.large_string())]
        for positions in np.split(by_chunk, boundaries):
            if len(positions):
                chunk = chunk_of_row[positions[0]]
                rows_in_chunk = rows[positions] - chunk_starts[chunk]
                taken.append(self.column.chunk(chunk).take(pa.array(rows_in_chunk)))
        original_order = np.argsort(by_chunk)
        return TextColumn(pa.concat_arrays(taken).take(pa.array(original_order)))
