"""Many strings in one buffer: a million short texts as Python objects weigh ten times what is written in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import overload

import numpy as np
import pyarrow as pa

BLOCK = 8192


class Strings(Sequence[str]):
    """N strings, read like a tuple of them; a slice shares its buffer with the whole."""

    def __init__(self, column: pa.Array | pa.ChunkedArray) -> None:
        whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        self.column = whole.cast(pa.large_string())
        if self.column.null_count:
            raise ValueError(f"{self.column.null_count} of {len(self.column)} strings are missing")

    @classmethod
    def of(cls, texts: Iterable[str]) -> Strings:
        """These strings themselves, or a copy in one buffer."""
        if isinstance(texts, Strings):
            return texts
        rest = iter(texts)
        blocks = [pa.array(block, pa.large_string()) for block in iter(lambda: list(islice(rest, BLOCK)), [])]
        return cls(pa.chunked_array(blocks, pa.large_string()))

    def __len__(self) -> int:
        return len(self.column)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Strings: ...
    def __getitem__(self, index: int | slice) -> str | Strings:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            return self.take(np.arange(start, stop, step)) if step != 1 else Strings(self.column.slice(start, max(0, stop - start)))
        return str(self.column[range(len(self))[int(index)]].as_py())

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), BLOCK):
            yield from self.column.slice(start, BLOCK).to_pylist()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Strings):
            return bool(self.column.equals(other.column))
        return isinstance(other, Sequence) and len(self) == len(other) and all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Strings({list(self[:3])}{', ...' if len(self) > 3 else ''}; {len(self)})"

    def __add__(self, other: Sequence[str]) -> Strings:
        return Strings(pa.concat_arrays([self.column, Strings.of(other).column]))

    def take(self, rows: np.ndarray) -> Strings:
        """The strings at `rows`, in that order."""
        return Strings(self.column.take(pa.array(rows, pa.int64())))
