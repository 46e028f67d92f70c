"""Batches of cached layers: how often the files are read, and what a loop over texts finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdedge.distillation.layer_files import TOKEN_AXES, LayerFiles, Layout
from kdedge.distillation.layer_sizes import LayerSizes
from kdedge.nn.signals import LayerSelection

LENGTHS = np.array([3, 7, 1, 5, 2, 7])
SIZES = LayerSizes(layers=4, heads=2, width=6, depth=3)
EVERYTHING = LayerSelection((0, 2, 4), (1, 3), (3,))


class CountedReads(np.ndarray[Any, Any]):
    """An array that counts every read of its values."""

    count = 0

    def __getitem__(self, index: Any) -> Any:
        CountedReads.count += 1
        return super().__getitem__(index)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        CountedReads.count += 1
        return super().__array_function__(func, types, args, kwargs)


@pytest.fixture
def files(tmp_path: Path) -> LayerFiles:
    files = LayerFiles.create(Layout.of(EVERYTHING, SIZES, LENGTHS), tmp_path)
    chance = np.random.default_rng(0)
    for array in files.arrays.values():
        array[:] = chance.normal(size=array.shape)
    return files


@pytest.mark.parametrize("rows", [[1], [4, 0, 5, 2], [5, 5, 3], [2, 2]])
@pytest.mark.parametrize("room", [0, 4])
def test_a_batch_holds_the_values_of_each_text_and_zeros(
    files: LayerFiles, rows: list[int], room: int
) -> None:
    length = int(LENGTHS[rows].max()) + room
    for name, array in files.arrays.items():
        axes = TOKEN_AXES[name]
        block = files.read(name, np.array(rows), length)
        assert block.shape == (len(rows), *[length] * axes, *array.shape[1:])
        assert block.dtype == np.float16
        for text, row in zip(block, rows, strict=True):
            tokens = int(LENGTHS[row])
            start = sum(int(count) ** axes for count in LENGTHS[:row])
            inside = (slice(tokens),) * axes
            values = np.array(array[start : start + tokens**axes])
            assert np.array_equal(text[inside].reshape(values.shape), values)
            assert np.count_nonzero(text) == np.count_nonzero(values), "padding is 0"


def test_tokens_of_a_batch_are_one_read_and_pairs_one_per_text(files: LayerFiles) -> None:
    counted: dict[str, Any] = {
        name: array.view(CountedReads) for name, array in files.arrays.items()
    }
    watched = LayerFiles(files.layout, counted)
    reads = {}
    for name in counted:
        CountedReads.count = 0
        watched.read(name, np.array([4, 0, 5, 2]), 7)
        reads[name] = CountedReads.count
    assert reads == {"hidden": 1, "vectors": 1, "attention": 4}
