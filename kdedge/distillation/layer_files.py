"""The files of a layer cache: one array per signal, with a row for each token of each text."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdedge.distillation.layer_sizes import LayerSizes
from kdedge.nn.signals import LayerSelection

TOKEN_AXES = {"hidden": 1, "attention": 2, "vectors": 1}
"""How many axes of each signal run over tokens."""


class Float16OverflowError(Exception):
    """A value is too large for float16."""


@dataclass(frozen=True)
class Layout:
    """The shapes of the files, and the rows of each text in them.

    A signal is one kind of the teacher's outputs: `hidden`, `attention` or `vectors`. Each has one
    file, with a row for each token; for attention with a row for each pair of tokens.

    Attributes:
        shapes: Name of a signal -> shape of one row of its file.
        lengths: Number of tokens of each text. *Shape:* (N,)
    """

    shapes: dict[str, tuple[int, ...]]
    lengths: np.ndarray

    @classmethod
    def of(cls, selection: LayerSelection, sizes: LayerSizes, lengths: np.ndarray) -> Layout:
        shapes: dict[str, tuple[int, ...]] = {}
        if selection.hidden:
            shapes["hidden"] = (len(selection.hidden), sizes.width)
        if selection.attention:
            shapes["attention"] = (len(selection.attention), sizes.heads)
        if selection.vectors:
            shapes["vectors"] = (len(selection.vectors), 3, sizes.heads, sizes.depth)
        return cls(shapes, lengths.astype(np.int64))

    def starts(self, name: str) -> np.ndarray:
        """Return the first row of each text, then the number of rows. *Shape:* (N + 1,)"""
        return np.concatenate([[0], np.cumsum(self.lengths ** TOKEN_AXES[name])])

    def file_shape(self, name: str) -> tuple[int, ...]:
        return (int(self.starts(name)[-1]), *self.shapes[name])

    def text_index(self, name: str, position: int, row: int) -> tuple[int | slice, ...]:
        """Return the index of the real tokens of text `row` in a padded batch (B, T, ...).

        `position` is the place of the text in the batch.
        """
        tokens = slice(int(self.lengths[row]))
        return (position, *[tokens] * TOKEN_AXES[name])

    @property
    def file_names(self) -> tuple[str, ...]:
        return tuple(f"{name}.npy" for name in self.shapes)

    @property
    def bytes(self) -> int:
        return sum(2 * math.prod(self.file_shape(name)) for name in self.shapes)


class LayerFiles:
    """The files of a cache, mapped into memory."""

    def __init__(self, layout: Layout, arrays: dict[str, np.memmap[Any, Any]]) -> None:
        self.layout = layout
        self.arrays = arrays
        self._starts = {name: layout.starts(name) for name in layout.shapes}

    @classmethod
    def create(cls, layout: Layout, folder: Path) -> LayerFiles:
        """Create the files with all their disk space. Raises OSError if the disk is full."""
        arrays = {}
        for name in layout.shapes:
            path = folder / f"{name}.npy"
            arrays[name] = np.lib.format.open_memmap(
                path, mode="w+", dtype=np.dtype(np.float16), shape=layout.file_shape(name)
            )
            _allocate(path)
        return cls(layout, arrays)

    @classmethod
    def open(cls, layout: Layout, folder: Path) -> LayerFiles:
        """Open finished files. Raises ValueError if a file has another shape."""
        arrays = {}
        for name in layout.shapes:
            array = np.lib.format.open_memmap(folder / f"{name}.npy", mode="r")
            if array.shape != layout.file_shape(name):
                raise ValueError(f"{name}.npy is {array.shape}, not {layout.file_shape(name)}")
            arrays[name] = array
        return cls(layout, arrays)

    def write(self, name: str, row: int, block: np.ndarray, position: int) -> None:
        """Store text `row`, which is at `position` of a padded batch."""
        values = block[self.layout.text_index(name, position, row)]
        if not np.isfinite(values).all():
            raise Float16OverflowError(f"{name} of text {row}: a value does not fit into float16")
        self._rows(name, row)[:] = values.reshape(-1, *self.layout.shapes[name])

    def read(self, name: str, rows: np.ndarray, length: int) -> np.ndarray:
        """Return a zero-padded batch (B, T, ...), for attention (B, T, T, ...)."""
        if TOKEN_AXES[name] == 1:
            return self._read_tokens(name, rows, length)
        return self._read_pairs(name, rows, length)

    def _read_tokens(self, name: str, rows: np.ndarray, length: int) -> np.ndarray:
        """Fill the batch with one read of the file; padding reads row 0, and then becomes 0."""
        tokens = np.arange(length)
        is_padding = tokens >= self.layout.lengths[rows][:, None]  # (B, T)
        places = np.where(is_padding, 0, self._starts[name][rows][:, None] + tokens)
        block = np.empty((*places.shape, *self.layout.shapes[name]), np.float16)
        # Every place is valid; with another mode than "clip", NumPy would copy the block again.
        np.take(self.arrays[name], places, axis=0, out=block, mode="clip")
        block[is_padding] = 0
        return block

    def _read_pairs(self, name: str, rows: np.ndarray, length: int) -> np.ndarray:
        """Read the pairs of each text at once: they are many short rows, next to each other."""
        shape = self.layout.shapes[name]
        block = np.zeros((len(rows), length, length, *shape), np.float16)
        starts = self._starts[name][rows].tolist()
        lengths = self.layout.lengths[rows].tolist()
        for text, start, tokens in zip(block, starts, lengths, strict=True):
            pairs = self.arrays[name][start : start + tokens**2]
            text[:tokens, :tokens] = pairs.reshape(tokens, tokens, *shape)
        return block

    def flush(self) -> None:
        for array in self.arrays.values():
            array.flush()

    def _rows(self, name: str, row: int) -> np.ndarray:
        start, end = self._starts[name][row : row + 2]
        return self.arrays[name][start:end]


def _allocate(path: Path) -> None:
    """Claim the disk space now: a disk that fills up later would kill the process."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, file.seek(0, os.SEEK_END))
