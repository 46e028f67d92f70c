"""Faults in a recipe name the line of the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdedge.errors import UsageError
from kdedge.recipe import load_recipe
from kdedge.recipe.lines import key_lines

RECIPE = """name = "r"
data.train = "a.csv"
[teacher]
model = "m"
[[student]]
kind = "tinybert"
[student.fit]
epohcs = 3
[[student]]
kind = "bilstm"
hidden = -1
"""


def test_keys_of_tables_and_lists_have_their_lines() -> None:
    lines = key_lines(RECIPE)
    assert lines["data", "train"] == 2
    assert lines["student", 0, "fit", "epohcs"] == 8
    assert lines["student", 1, "hidden"] == 11


def test_a_fault_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text(RECIPE, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        load_recipe(path)
    assert "line 8: student.tinybert.fit.epohcs" in caught.value.detail
    assert "line 11: student.bilstm.hidden" in caught.value.detail


def test_a_value_that_an_override_changed_names_no_line(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text(RECIPE.replace("epohcs", "epochs"), encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        load_recipe(path, ("student.bilstm.hidden=-2",))
    assert "line" not in caught.value.detail
