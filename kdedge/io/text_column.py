"""Many strings in few buffers, or mapped from a file: a million short texts as Python objects weigh ten times what is written in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

BLOCK = 8192


class TextColumn(Sequence[str]):
    """N strings, read like a tuple of them; a slice, and a sum, share their buffers with the whole."""

    def __init__(self, column: pa.Array | pa.ChunkedArray) -> None:
        whole = column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])
        self.column = whole.cast(pa.large_string())
        if self.column.null_count:
            raise ValueError(f"{self.column.null_count} of {len(self.column)} strings are missing")

    @classmethod
    def of(cls, texts: Iterable[str]) -> TextColumn:
        """These strings themselves, or a copy."""
        if isinstance(texts, TextColumn):
            return texts
        rest = iter(texts)
        blocks = [
            pa.array(block, pa.large_string())
            for block in iter(lambda: list(islice(rest, BLOCK)), [])
        ]
        return cls(pa.chunked_array(blocks, pa.large_string()))

    def __len__(self) -> int:
        return len(self.column)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> TextColumn: ...
    def __getitem__(self, index: int | slice) -> str | TextColumn:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            return (
                self.take(np.arange(start, stop, step))
                if step != 1
                else TextColumn(self.column.slice(start, max(0, stop - start)))
            )
        return str(self.column[range(len(self))[int(index)]].as_py())

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), BLOCK):
            yield from self.column.slice(start, BLOCK).to_pylist()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, TextColumn):
            return bool(self.column.equals(other.column))
        return (
            isinstance(other, Sequence)
            and len(self) == len(other)
            and all(mine == theirs for mine, theirs in zip(self, other, strict=True))
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Strings({list(self[:3])}{', ...' if len(self) > 3 else ''}; {len(self)})"

    def __add__(self, other: Sequence[str]) -> TextColumn:
        return TextColumn(
            pa.chunked_array(
                [*self.column.chunks, *TextColumn.of(other).column.chunks], pa.large_string()
            )
        )

    def among(self, wanted: Sequence[str]) -> np.ndarray:
        """(N,) whether each is one of those."""
        return np.asarray(pc.is_in(self.column, pa.array(wanted, pa.large_string())))

    def take(self, rows: np.ndarray) -> TextColumn:
        """The strings at `rows`, in that order. (Arrow's own `take` would join all chunks first.)"""
        rows = np.asarray(rows, np.int64)
        starts = np.cumsum([0, *map(len, self.column.chunks)])
        homes = np.searchsorted(starts, rows, "right") - 1
        order = np.argsort(homes, kind="stable")
        cuts = np.flatnonzero(np.diff(homes[order])) + 1
        found = [
            self.column.chunk(homes[some[0]]).take(pa.array(rows[some] - starts[homes[some[0]]]))
            for some in np.split(order, cuts)
            if len(some)
        ]
        grouped = pa.concat_arrays([pa.array([], pa.large_string()), *found])
        return TextColumn(grouped.take(pa.array(np.argsort(order))))
