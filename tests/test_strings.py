"""Strings in one buffer read like a tuple of them; runs of numbers like a list of lists."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdedge.encode import Runs
from kdedge.strings import Strings

texts = st.lists(st.text(st.characters(codec="utf-8"), max_size=8), max_size=20)


@given(texts, st.integers(-22, 22), st.integers(-22, 22))
def test_strings_read_like_a_tuple(given_texts: list[str], start: int, stop: int) -> None:
    whole = Strings.of(given_texts)
    assert whole == tuple(given_texts) and len(whole) == len(given_texts) and list(whole) == given_texts
    assert whole[start:stop] == given_texts[start:stop] and whole[::2] == given_texts[::2]
    assert whole + tuple(given_texts[:1]) == given_texts + given_texts[:1]
    rows = np.arange(len(given_texts))[::-1]
    assert whole.take(rows) == given_texts[::-1]
    if given_texts:
        assert whole[-1] == given_texts[-1] and whole[0] == given_texts[0]
    with pytest.raises(IndexError):
        whole[len(given_texts)]


def test_strings_are_equal_only_to_the_same() -> None:
    assert Strings.of(["a", "b"]) != ("a", "c") and Strings.of(["a"]) != ("a", "b") and Strings.of(["a"]) != "a b"
    with pytest.raises(ValueError, match="1 of 2 strings are missing"):
        Strings.of(["a", None])  # type: ignore[list-item]


@given(st.lists(st.lists(st.integers(0, 2**31 - 1), max_size=5), max_size=12))
def test_runs_read_like_a_list_of_lists(lists: list[list[int]]) -> None:
    runs = Runs.of(lists)
    assert list(runs) == lists and runs[1:] == lists[1:] and runs.lengths.tolist() == [len(run) for run in lists]
