"""Single values of a label column, as training and `kdedge init` read them."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kdedge.data import load_task
from kdedge.data.guess import DataGuess, guess_data, guess_warnings
from kdedge.data.label_cells import as_number, is_index, is_missing, labels_of_cell
from kdedge.data.task import Task
from kdedge.errors import DataError
from kdedge.recipe import DataConfig, TaskConfig


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


@pytest.mark.parametrize(
    ("text", "index"),
    [("0", True), ("12", True), ("007", False), ("-1", False), ("1.0", False), ("", False)],
)
def test_an_index_is_written_in_digits(text: str, index: bool) -> None:
    assert is_index(text) == index


WORDS = "a review of several words number"


def task_of(folder: Path, labels: list[Any]) -> tuple[DataGuess, Task]:
    """Guess what a jsonl file with these labels holds, and read it as training does."""
    path = folder / "data.jsonl"
    rows = [{"text": f"{WORDS} {row}", "label": label} for row, label in enumerate(labels)]
    path.write_text("\n".join(map(json.dumps, rows)))
    guess = guess_data(path)
    data = DataConfig(train=str(path), validation=0.2, test=0.2)
    return guess, load_task(data, TaskConfig(kind=guess.kind), name="cells", seed=0)


def test_digits_with_an_underscore_are_names(tmp_path: Path) -> None:
    guess, task = task_of(tmp_path, ["1_000", "2_000"] * 20)
    assert guess.kind == "classification"
    assert dict(guess.labels) == {"1_000": 20, "2_000": 20}
    assert task.spec.labels == ("1_000", "2_000")


def test_whole_floats_are_indices(tmp_path: Path) -> None:
    guess, task = task_of(tmp_path, [0.0, 1.0] * 20)
    assert dict(guess.labels) == {"0": 20, "1": 20}
    assert task.spec.labels == ("0", "1")
    assert set(task.train.labels) == {0, 1}


def test_decimals_of_a_database_are_indices() -> None:
    assert labels_of_cell("classification", Decimal("3.0")) == [3]
    assert labels_of_cell("multilabel", [1.0, 2]) == [1, 2]
    assert labels_of_cell("classification", Decimal("3.5")) == [Decimal("3.5")]
    assert labels_of_cell("classification", math.inf) == [math.inf]


def test_missing_labels_are_no_label_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(
        "\n".join(["text,label", *[f"{WORDS},{name}" for name in ("a", "b", "", "nan")]])
    )
    assert dict(guess_data(path).labels) == {"a": 1, "b": 1}
    path.write_text(
        "\n".join(["text,label", *[f"{WORDS},{name}" for name in ("a", "a", "", "nan")]])
    )
    with pytest.raises(DataError, match="all rows have the same label"):
        guess_data(path)
    path.write_text("\n".join(["text,label", *[f"{WORDS},{name}" for name in ("", " ", "nan")]]))
    with pytest.raises(DataError, match="the column of the label is empty"):
        guess_data(path)


def test_a_column_that_is_mostly_empty_is_not_the_label(tmp_path: Path) -> None:
    path = tmp_path / "sources.csv"
    rows = [f"{WORDS},{'abc'[row % 3]},{'xy'[row % 2] if row < 4 else ''}" for row in range(20)]
    path.write_text("\n".join(["text,klass,source", *rows]))
    assert guess_data(path).label == "klass"


def test_an_empty_multilabel_cell_is_a_text_without_labels(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    rows = [f"{WORDS} {row},{'spam' if row % 3 == 0 else ''}" for row in range(40)]
    path.write_text("\n".join(["text,flags", *rows]))
    guess = guess_data(path, label="flags", kind="multilabel")
    assert dict(guess.labels) == {"spam": 14}
    path.write_text(
        "\n".join(["text,aspects", *[row.replace("spam", "a|b") for row in rows], "x,a"])
    )
    guess = guess_data(path)
    assert (guess.label, guess.kind) == ("aspects", "multilabel")


def test_one_missing_cell_leaves_the_others_multi_hot(tmp_path: Path) -> None:
    labels: list[Any] = [[1, 0, 0], [0, 1, 1]] * 20
    path = tmp_path / "data.jsonl"
    rows = [{"text": f"{WORDS} {row}", "label": label} for row, label in enumerate([*labels, None])]
    path.write_text("\n".join(map(json.dumps, rows)))
    guess = guess_data(path)
    assert dict(guess.labels) == {"0": 20, "1": 20, "2": 20}
    data = DataConfig(train=str(path), validation=0.2, test=0.2)
    with pytest.raises(DataError) as raised:
        load_task(data, TaskConfig(kind=guess.kind), name="cells", seed=0)
    assert "1 fault in the data" in str(raised.value)
    assert "the label is missing (None)" in str(raised.value)


def test_scores_with_gaps_get_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    scores = ["NA", *[f"{row}.5" for row in range(60)]]
    path.write_text("\n".join(["text,label", *[f"{WORDS},{score}" for score in scores]]))
    assert any("60 of 61 labels are numbers" in line for line in guess_warnings(guess_data(path)))


def test_a_negative_label_is_called_negative(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="label -1 is negative"):
        task_of(tmp_path, [-1, 0, 1] * 10)


def test_texts_that_are_bytes_are_named(tmp_path: Path) -> None:
    path = tmp_path / "bytes.parquet"
    pq.write_table(pa.table({"text": [b"a", b"b"], "label": ["x", "y"]}), path)
    with pytest.raises(DataError, match="the column 'text' holds no texts"):
        guess_data(path)


def test_a_record_beside_the_texts_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "records.parquet"
    columns = {"text": ["one", "two"], "message": [{"id": 1}, {"id": 2}], "label": ["x", "y"]}
    pq.write_table(pa.table(columns), path)
    assert guess_data(path).text == "text"
