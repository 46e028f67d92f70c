"""Single values of a label column, as training and `kdedge init` read them."""

from __future__ import annotations

import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from kdedge.data.guess import guess_data
from kdedge.data.label_cells import as_number, is_missing


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (2, 2.0),
        ("3.75", 3.75),
        (" 4 ", 4.0),
        (Decimal("1.5"), 1.5),
        ("1e400", math.inf),
        ("1_000", None),
        ("good", None),
        ("", None),
        (True, None),
        (None, None),
        ([1], None),
        (10**400, None),
    ],
)
def test_a_number_is_read_as_people_write_it(value: Any, number: float | None) -> None:
    assert as_number(value) == number


@pytest.mark.parametrize("value", [None, "", "  ", "nan", " NaN", math.nan])
def test_a_table_has_several_signs_of_a_missing_value(value: Any) -> None:
    assert is_missing(value)


@pytest.mark.parametrize("value", [0, 0.0, False, "0", "none", [], "n/a"])
def test_other_values_are_not_missing(value: Any) -> None:
    assert not is_missing(value)


def test_a_file_is_guessed_as_it_is_read(tmp_path: Path) -> None:
    """Digits with an underscore are names in both, and "nan" is no value in both."""
    path = tmp_path / "labels.csv"
    labels = ["1_000", "2_000", "nan", "1_000"]
    rows = [f"a text of several words,{label}" for label in labels]
    path.write_text("\n".join(["text,label", *rows]))
    assert guess_data(path).kind == "classification"
    path.write_text("\n".join(["text,label", *(row.replace("_", ".") for row in rows)]))
    assert guess_data(path).kind == "classification"
    path.write_text("\n".join(["text,label", *(row.replace("_000", ".5") for row in rows)]))
    assert guess_data(path).kind == "regression"
