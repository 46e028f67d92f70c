"""Counts, lists and hints in messages."""

from __future__ import annotations

import pytest

from kdedge.wording import counted, listed, nearest_or_known, shortened


@pytest.mark.parametrize(("number", "text"), [(0, "0 faults"), (1, "1 fault"), (12, "12 faults")])
def test_a_number_stands_with_its_noun(number: int, text: str) -> None:
    assert counted(number, "fault") == text


def test_a_list_ends_with_the_number_of_the_others() -> None:
    assert listed(["a", "b"], 2) == "a, b"
    assert listed(["a", "b", "c", "d"], 2) == "a, b and 2 more"


def test_a_short_text_stays_as_it_is() -> None:
    assert shortened("x" * 10, 10) == "x" * 10
    assert shortened("x" * 11, 10) == "xxxxxxx..."


def test_a_hint_names_the_nearest_name_or_all() -> None:
    assert nearest_or_known("tread", ["seconds", "threads"]) == "did you mean threads?"
    assert nearest_or_known("colour", ["seconds", "threads"]) == "known: seconds, threads"
