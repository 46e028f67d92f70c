"""Text for a terminal holds no control characters."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdedge.printable import json_line, printable, printable_lines


@pytest.mark.parametrize(
    "text, shown",
    [
        ("plain ä 漢 🙂", "plain ä 漢 🙂"),
        ("a\x1b[2Jb", r"a\x1b[2Jb"),
        ("\x9b1m", r"\x9b1m"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
        ("two\nlines\t", r"two\nlines\t"),
        ("\u2028", r"\u2028"),
        ("\ud800", r"\ud800"),
        ("می\u200cخواهم", "می\u200cخواهم"),
    ],
)
def test_control_characters_become_escapes(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_line_ends_of_a_message_stay() -> None:
    assert printable_lines("one\ntwo\x1b") == "one\ntwo\\x1b"


@given(st.text())
def test_a_json_line_has_no_control_characters_and_means_the_same(text: str) -> None:
    line = json_line({"label": text})
    assert json.loads(line) == {"label": text}
    assert printable(line) == line
