"""One reader serves all file types: places in errors, long fields, streaming."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kdedge.errors import DataError, UsageError
from kdedge.io.delimited import DELIMITERS, find_delimiter
from kdedge.io.tabular import iter_rows, read_table, stream_texts


def test_rows_know_the_line_on_which_they_end(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('text,id\n"two\nlines",1\n\nlast,2\n', encoding="utf-8")
    rows = list(iter_rows(path, ("text",)))
    assert [row.line for row in rows] == [3, 5]
    assert rows[0].cells == {"text": "two\nlines", "id": "1"}


def test_a_long_field_is_read_and_the_limit_of_the_process_stays(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    path = tmp_path / "t.csv"
    path.write_text(f"text\n{'x' * 200_000}\nshort\n", encoding="utf-8")
    rows = stream_texts(path, ("text",))
    assert len(next(rows)[0]) == 200_000
    assert csv.field_size_limit() == before
    assert list(rows) == [("short",)]


def test_rows_before_a_malformed_line_are_streamed(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"text": "one"}\nno json\n', encoding="utf-8")
    rows = stream_texts(path, ("text",))
    assert next(rows) == ("one",)
    with pytest.raises(DataError, match=r"t\.jsonl:2: not JSON"):
        next(rows)


def test_tables_hold_the_requested_columns_and_name_all(tmp_path: Path) -> None:
    columns = {"text": ["one", None], "id": [1, 2]}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    (tmp_path / "t.jsonl").write_text('{"text": "one", "id": 1}\n{"id": 2}\n', encoding="utf-8")
    for name, place in (("t.parquet", ", row 2"), ("t.jsonl", ":2")):
        table = read_table(tmp_path / name, ("text", "pair"))
        assert table.columns == {"text": ["one", None]}
        assert table.names == ("text", "id")
        assert table.where(1) == f"{tmp_path / name}{place}"
        with pytest.raises(UsageError, match=r"(?s)no column 'texts'.*--text 'text'"):
            table.column("texts", "--text")


def test_the_reader_imports_no_training_package() -> None:
    code = (
        "import sys, kdedge.io.tabular; "
        "print(sorted({'torch', 'pyarrow', 'pydantic', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "header, columns, delimiter",
    [
        ("text,label", ("text", "label"), ","),
        ("text;label", ("text", "label"), ";"),
        ('"a, b";text', ("text",), ";"),
        ("id;a,text", ("text",), ","),
        ("text", ("text",), ","),
        ("review;stars", ("text",), ";"),
    ],
)
def test_the_delimiter_is_judged_by_the_header(
    header: str, columns: tuple[str, ...], delimiter: str
) -> None:
    assert find_delimiter(header, columns) == delimiter


@pytest.mark.parametrize("delimiter", DELIMITERS)
def test_every_delimiter_is_recognised(tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f'text{delimiter}label\n"a, b; c"{delimiter}1\n', encoding="utf-8")
    table = read_table(path, ("text", "label"))
    assert table.columns == {"text": ["a, b; c"], "label": ["1"]}


def test_a_delimiter_that_does_not_fit_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("text;label\na;b\n", encoding="utf-8")
    assert read_table(path, ("text",)).columns == {"text": ["a"]}
    with pytest.raises(UsageError, match=r"data\.delimiter = ';'"):
        read_table(path, ("text",), delimiter=",").column("text", "data.text")


def test_faults_do_not_show_the_row(tmp_path: Path) -> None:
    for name, row in (("t.csv", "secret,b,c"), ("t.jsonl", "secret")):
        path = tmp_path / name
        path.write_text(f"text,label\n{row}\n" if name == "t.csv" else f"{row}\n", "utf-8")
        with pytest.raises(DataError) as caught:
            read_table(path, ("text", "label"))
        assert "secret" not in str(caught.value)
