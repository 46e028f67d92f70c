"""What `kdedge bench` refuses before it measures, and which doubts it reports."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import factories
import numpy as np
import pytest
from click.testing import CliRunner
from kdedge.benchmarks.against import read_earlier
from kdedge.benchmarks.compare import read_reports
from kdedge.benchmarks.examples import read_examples
from kdedge.benchmarks.int8_gain import int8_answers
from kdedge.benchmarks.output_folder import check_writable
from kdedge.benchmarks.render import write_report
from kdedge.benchmarks.report import warnings
from kdedge.benchmarks.row_notes import int8_speed_notes
from kdedge.benchmarks.summary import summary
from reports import report

import kdedge
from kdedge.cli.bench import bench
from kdedge.errors import DataError, KdedgeError, UsageError
from kdedge.evaluation.timing import Timings
from kdedge.runtime.spec import TaskSpec

SPEC = factories.single_task().spec


@pytest.fixture(scope="module")
def bundle() -> Path:
    return factories.tiny_bundle()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--seconds", "nan"], "nan is not a finite number"),
        (["--target", "nan"], "nan is not a finite number"),
        (["--scenario", "load", "--rate", "inf"], "inf is not a finite number"),
    ],
)
def test_numbers_must_be_finite(bundle: Path, flags: list[str], says: str) -> None:
    result = CliRunner().invoke(bench, [str(bundle), *flags])
    assert result.exit_code == 2 and says in result.output


def test_a_rate_needs_the_scenario_load(bundle: Path) -> None:
    with pytest.raises(UsageError, match="rates belong to the scenario load"):
        CliRunner().invoke(bench, [str(bundle), "--rate", "5"], catch_exceptions=False)


def test_a_report_that_cannot_be_written_is_refused_before_the_bench(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    check_writable(tmp_path / "new" / "folder")
    with pytest.raises(UsageError, match="cannot be written") as caught:
        check_writable(tmp_path / "file" / "report")
    assert "is not a folder" in caught.value.detail and "--out" in caught.value.hint


def test_files_of_other_types_and_encodings_have_a_hint_for_options(tmp_path: Path) -> None:
    (tmp_path / "a.xlsx").write_text("text\n")
    with pytest.raises(UsageError, match="not supported") as caught:
        read_examples(tmp_path / "a.xlsx", SPEC)
    assert caught.value.hint == "convert the file to one of csv, tsv, jsonl, parquet, txt"
    (tmp_path / "b.csv").write_bytes("text\ncafé\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"b\.csv:2") as wrong:
        read_examples(tmp_path / "b.csv", SPEC)
    assert wrong.value.hint.startswith("save the file as utf-8, or, in a recipe,")


def test_blank_texts_and_a_single_label_are_doubts(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    name = SPEC.labels[1]
    path.write_text(f"text,label\ngood,{name}\n,{name}\n  ,{name}\n")
    assert read_examples(path, SPEC).doubts(SPEC) == [
        "2 of 3 texts are blank",
        f"every text has the label {name!r}: a constant answer is right",
    ]
    path.write_text(f"text,label\ngood,{name}\nbad,{SPEC.labels[0]}\n")
    assert read_examples(path, SPEC).doubts(SPEC) == []


def test_a_report_is_not_compared_with_itself(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text("{}")
    with pytest.raises(UsageError, match="cannot be compared with itself"):
        read_reports([path, tmp_path / ".." / tmp_path.name / "report.json"])


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"rows": []}, "it has no entry"),
        ([], "its entries have another form"),
    ],
)
def test_a_broken_report_is_explained_in_words(
    tmp_path: Path, document: object, reason: str
) -> None:
    path, other = tmp_path / "report.json", tmp_path / "other.json"
    for each in (path, other):
        each.write_text(json.dumps(document))
    with pytest.raises(KdedgeError) as against:
        read_earlier(path)
    with pytest.raises(KdedgeError) as compared:
        read_reports([path, other])
    for detail in (against.value.detail, compared.value.detail):
        assert reason in detail
        assert not any(word in detail for word in ("Error", "NoneType", "subscript"))


def test_a_row_without_the_label_that_others_have_is_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    rows = [{"text": "a good film", "label": SPEC.labels[0]}, {"text": "a bad film"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError) as caught:
        read_examples(path, SPEC)
    assert "t.jsonl:2: the label is missing" in caught.value.detail
    path.write_text("".join(json.dumps({**row, "label": None}) + "\n" for row in rows))
    assert read_examples(path, SPEC).labels is None


@pytest.mark.parametrize("spec", [SPEC, replace(SPEC, kind="multilabel", metric="micro_f1")])
def test_a_column_of_empty_labels_is_none(tmp_path: Path, spec: TaskSpec) -> None:
    path = tmp_path / "t.csv"
    path.write_text("text,label\na film,\nanother, \n")
    assert read_examples(path, spec).labels is None


def test_an_empty_label_among_others_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"text,label\na film,{SPEC.labels[0]}\nanother,\n")
    with pytest.raises(DataError) as caught:
        read_examples(path, SPEC)
    assert "t.csv:3: the label is missing" in caught.value.detail


def test_true_and_false_are_the_labels_1_and_0(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"text": "a film", "label": true}\n{"text": "another", "label": false}\n')
    labels = read_examples(path, replace(SPEC, labels=("0", "1"))).labels
    assert labels is not None and labels.tolist() == [1, 0]


def test_texts_with_commas_in_a_file_of_one_column_have_a_hint(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("text\na film, and a good one\n")
    with pytest.raises(DataError, match="2 fields, but the header has 1") as caught:
        read_examples(path, SPEC)
    said = f"{caught.value.detail} {caught.value.hint}"
    assert "separator ','" in said and "txt file, one a line" in said


def test_a_blank_line_of_pairs_in_a_txt_file_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("a good film\tb\n\nc d\te f\n")
    examples = read_examples(path, replace(SPEC, pair=True))
    assert examples.texts == ["a good film", "c d"] and examples.pairs == ["b", "e f"]


STARS = replace(SPEC, labels=("1", "2", "3", "4", "5"))
MANY = replace(STARS, kind="multilabel", metric="micro_f1")


@pytest.mark.parametrize(
    ("spec", "cells", "indices"),
    [
        (STARS, ["0", "1", "2", "3", "4"], [0, 1, 2, 3, 4]),
        (STARS, ["1", "2", "3", "4", "5"], [0, 1, 2, 3, 4]),
        (STARS, ["1", "2", "1", "3", "4"], [0, 1, 0, 2, 3]),
        (SPEC, ["1", "0", "1"], [1, 0, 1]),
        (MANY, ["0|4", "", "1"], [[1, 0, 0, 0, 1], [0, 0, 0, 0, 0], [0, 1, 0, 0, 0]]),
        (MANY, ["1|5", "2"], [[1, 0, 0, 0, 1], [0, 1, 0, 0, 0]]),
    ],
)
def test_a_column_holds_names_or_indices(
    tmp_path: Path, spec: TaskSpec, cells: list[str], indices: list[Any]
) -> None:
    path = tmp_path / "t.csv"
    path.write_text("text,label\n" + "".join(f"a film,{cell}\n" for cell in cells))
    labels = read_examples(path, spec).labels
    assert labels is not None and labels.tolist() == indices


def test_a_column_of_names_and_indices_is_a_fault(tmp_path: Path) -> None:
    """Of labels 1 to 5, 0 can only be an index and 5 only a name."""
    path = tmp_path / "t.csv"
    path.write_text("text,label\na film,5\na film,1\na film,0\n")
    with pytest.raises(DataError) as caught:
        read_examples(path, STARS)
    assert "t.csv:4: label '0' is not one of this bundle" in caught.value.detail
    path.write_text(f"text,label\na film,0\na film,{SPEC.labels[0]}\na film,1\n")
    with pytest.raises(DataError, match=f"t.csv:3: label {SPEC.labels[0]!r}"):
        read_examples(path, SPEC)


def test_a_column_of_labels_needs_a_file(bundle: Path) -> None:
    with pytest.raises(UsageError, match="--label needs --data"):
        CliRunner().invoke(bench, [str(bundle), "--label", "x"], catch_exceptions=False)


def test_nothing_is_written_before_all_files_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(report: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("kdedge.benchmarks.render.html_page", stop)
    with pytest.raises(KeyboardInterrupt):
        write_report(report(), tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_a_few_rounds_prove_nothing_about_int8() -> None:
    """Three rounds cannot exclude chance at 99 %: the section and the warnings agree on it."""
    example = report()
    fp32, int8 = (row for row in example.rows if row.form == "onnx" and not row.is_teacher)
    slow = Timings(tuple(np.array([2e-3 + k * 1e-5]) for k in range(3)))
    fast = Timings(tuple(np.array([1e-3 + k * 1e-5]) for k in range(3)))
    few = replace(example, rows=(replace(fp32, single=slow), replace(int8, single=fast)))
    (answer,) = int8_answers(few)
    assert "is inconclusive" in answer.sentence
    assert "3 rounds are too few for an interval" in answer.sentence
    notes = int8_speed_notes(few.rows[1], few.rows[0])
    assert len(notes) == 1 and "not measurably faster" in notes[0]


def test_a_speedup_from_a_few_values_is_not_in_the_sentence() -> None:
    example = report()
    few = Timings((np.array([1e-3] * 3),))
    rows = [replace(row, single=few) if row.single else row for row in example.rows]
    sentence = summary(replace(example, rows=tuple(rows)))
    assert "was timed too briefly for a speedup" in sentence and "times as fast" not in sentence
    assert any("timed only 3 times" in line for line in warnings(replace(example, rows=rows)))


def test_rates_belong_to_all_scenarios_too() -> None:
    from kdedge.api.bench import _options

    options = _options({"scenarios": ("all",), "rates": (5.0,)})
    assert "load" in options.scenarios and options.rates == (5.0,)
    with pytest.raises(UsageError, match="rates"):
        _options({"scenarios": ("cold",), "rates": (5.0,)})


@pytest.mark.parametrize(
    "wrong",
    [
        {"threads": 2.5},
        {"threads": True},
        {"threads": 5000},
        {"batch": 2.5},
        {"batch": 0},
        {"repeats": 2.0},
        {"seconds": float("inf")},
        {"seconds": "3"},
        {"target": 5},
        {"target": float("nan")},
        {"seed": -1},
        {"providers": "cpu"},
        {"providers": ()},
        {"rates": (0.0,), "scenarios": ("load",)},
        {"rates": (-5.0,), "scenarios": ("load",)},
        {"rates": 5.0, "scenarios": ("load",)},
    ],
)
def test_settings_of_python_are_checked_before_the_bench(
    bundle: Path, wrong: dict[str, Any]
) -> None:
    name = next(iter(wrong))
    with pytest.raises(UsageError, match=f"{name} must be") as caught:
        kdedge.bench(bundle, **wrong)
    assert f"{name}={wrong[name]!r}" in caught.value.detail
