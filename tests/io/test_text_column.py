"""Strings in one buffer read like a tuple of them; runs of numbers like a list of lists."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdedge.io.arrow import ROWS, blocks_of, map_table, write_table
from kdedge.io.text_column import TextColumn
from kdedge.nn.inference import token_batches
from kdedge.nn.ragged import RaggedArray

texts = st.lists(st.text(st.characters(codec="utf-8"), max_size=8), max_size=20)


@given(texts, st.integers(-22, 22), st.integers(-22, 22))
def test_strings_read_like_a_tuple(given_texts: list[str], start: int, stop: int) -> None:
    whole = TextColumn.of(given_texts)
    assert (
        whole == tuple(given_texts)
        and len(whole) == len(given_texts)
        and list(whole) == given_texts
    )
    assert whole[start:stop] == given_texts[start:stop] and whole[::2] == given_texts[::2]
    assert whole + tuple(given_texts[:1]) == given_texts + given_texts[:1]
    rows = np.arange(len(given_texts))[::-1]
    assert whole.take(rows) == given_texts[::-1]
    if given_texts:
        assert whole[-1] == given_texts[-1] and whole[0] == given_texts[0]
    with pytest.raises(IndexError):
        whole[len(given_texts)]


@given(st.lists(texts, max_size=6), st.randoms())
def test_strings_in_several_chunks_read_like_one(
    chunks: list[list[str]], chance: random.Random
) -> None:
    flat = [text for chunk in chunks for text in chunk]
    whole = TextColumn(
        pa.chunked_array(
            [pa.array(chunk, pa.large_string()) for chunk in chunks], pa.large_string()
        )
    )
    rows = [chance.randrange(len(flat)) for _ in range(2 * len(flat))]
    assert whole == flat and whole.take(np.array(rows, np.int64)) == [flat[row] for row in rows]
    assert whole[1:-1] == flat[1:-1] and whole[::-2] == flat[::-2]
    assert [i for i, there in enumerate(whole.among(flat[:2])) if there] == [
        i for i, text in enumerate(flat) if text in flat[:2]
    ]


def test_a_table_has_the_same_bytes_however_its_chunks_lie(tmp_path: Path) -> None:
    count = 2 * ROWS + 5
    columns = {
        "text": pa.array([f"text {i}" for i in range(count)], pa.large_string()),
        "some": pa.array([i if i % 3 else None for i in range(count)]),
    }
    whole = pa.table(columns)
    longer = pa.concat_tables([whole.slice(0, 3), whole]).combine_chunks()
    for number, table in enumerate(
        (whole, pa.concat_tables([whole.slice(0, 13), whole.slice(13)]), longer.slice(3))
    ):
        write_table(blocks_of(table), tmp_path / f"{number}.arrow")
        assert map_table(tmp_path / f"{number}.arrow").equals(whole)
    assert len({(tmp_path / f"{number}.arrow").read_bytes() for number in range(3)}) == 1
    write_table(blocks_of(whole.schema.empty_table()), tmp_path / "none.arrow")
    assert map_table(tmp_path / "none.arrow").equals(whole.schema.empty_table())


def test_strings_are_equal_only_to_the_same() -> None:
    assert (
        TextColumn.of(["a", "b"]) != ("a", "c")
        and TextColumn.of(["a"]) != ("a", "b")
        and TextColumn.of(["a"]) != "a b"
    )
    with pytest.raises(ValueError, match="1 of 2 strings are missing"):
        TextColumn.of(["a", None])  # type: ignore[list-item]


@given(st.lists(st.lists(st.integers(0, 2**31 - 1), max_size=5), max_size=12))
def test_runs_read_like_a_list_of_lists(lists: list[list[int]]) -> None:
    runs = RaggedArray.of(lists)
    assert (
        list(runs) == lists
        and runs[1:] == lists[1:]
        and runs.lengths.tolist() == [len(run) for run in lists]
    )


def test_batches_hold_every_text_once_within_their_budget_in_few_shapes() -> None:
    chance, shapes = np.random.default_rng(0), set()
    for _ in range(50):
        lengths = chance.integers(3, 20, chance.integers(2000, 4096))
        batches = list(token_batches(lengths, 1024))
        assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
        assert all(len(rows) * lengths[rows].max() <= 1024 for rows in batches)
        assert len(batches) <= np.ceil(lengths.sum() / 1024) + 25
        shapes |= {(len(rows), int(lengths[rows].max())) for rows in batches}
    assert len(shapes) < 60, f"{len(shapes)}: each costs a kernel"
