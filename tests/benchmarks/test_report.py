"""The report as strict JSON, as a table of 120 columns, and as Markdown that no name breaks."""

from __future__ import annotations

import io
import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from kdedge.benchmarks import machine
from kdedge.benchmarks.cells import COLUMNS, title
from kdedge.benchmarks.footprint import Footprint
from kdedge.benchmarks.markdown import markdown
from kdedge.benchmarks.render import write_report
from kdedge.benchmarks.report import Report, one_line, warnings
from kdedge.benchmarks.report_json import finite
from kdedge.benchmarks.result_warnings import result_warnings
from kdedge.benchmarks.row import Row
from reports import CPU, report, timings
from rich.console import Console

from kdedge.cli.bench_output import rich_table
from kdedge.errors import MachineError
from kdedge.evaluation.timing import Timings

ROW_KEYS = {
    "subject", "precision", "provider", "threads", "batch", "p50_us", "p90_us", "p99_us",
    "texts_per_s", "metric", "value", "retention", "retention_low", "retention_high", "bytes",
    "peak_mb",
}  # fmt: skip


GROWN = {
    "origins": {"labelled": 100, "rules": 80},
    "sources": {
        "rules": {
            "target": 100,
            "attempts": 128,
            "produced": 120,
            "rejected": {"held out": 30, "near | duplicate": 10},
            "used": 80,
        }
    },
    "rejected": {"confidence": 0, "balance": 7},
    "curve": {
        "points": [
            {"size": 0.0, "sources": [], "texts": 100, "agreement": 0.8, "validation": 0.7},
            {"size": 0.4, "sources": ["rules"], "texts": 140, "agreement": 0.82, "validation": 0.7},
            {
                "size": 0.8,
                "sources": ["rules"],
                "texts": 180,
                "agreement": 0.825,
                "validation": 0.7,
            },
        ],
        "chosen": {
            "size": 0.4,
            "sources": ["rules"],
            "texts": 140,
            "agreement": 0.82,
            "validation": 0.7,
        },
        "apart": 500,
    },
}


@pytest.mark.parametrize(
    ("teacher", "end"),
    [
        ({"model": "m", "fine_tuned": True}, ": measured against its teacher (fine-tuned from m)"),
        ({"model": "m", "fine_tuned": False}, ": measured against m"),
        ({}, ": measured"),
    ],
)
def test_the_title_names_the_teacher(teacher: dict[str, object], end: str) -> None:
    assert title(replace(report(), teacher=teacher)).endswith(end)


@pytest.mark.slow
def test_the_page_describes_the_transfer_set(tmp_path: Path) -> None:
    write_report(replace(report(), learned_from=GROWN), tmp_path)
    page = (tmp_path / "report.md").read_text()
    assert "Texts by origin: 100 labelled, 80 rules." in page
    assert "| rules | 100 | 128 | 120 | 80 | held out 30, near \\| duplicate 10 |" in page
    assert (
        "Rejected after the teacher had labelled them: balance 7." in page
        and "![agreement with the teacher against texts](curve.svg)" in page
    )
    picture = (tmp_path / "curve.svg").read_text()
    assert (
        "labelled alone" in picture
        and "agreement with the teacher" in picture
        and "(140 texts)" in picture
    )
    assert json.loads((tmp_path / "report.json").read_text())["learned_from"] == GROWN
    write_report(report(), tmp_path / "alone")
    assert (
        "students learned from" not in (tmp_path / "alone" / "report.md").read_text()
        and not (tmp_path / "alone" / "curve.svg").exists()
    )


def render(example: Report, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width, legacy_windows=False)
    console.print(rich_table(example))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_the_document_has_the_promised_keys_and_derives_its_numbers() -> None:
    example = report()
    document = json.loads(one_line(example))
    assert all(entry.keys() >= ROW_KEYS for entry in document["rows"])
    teacher, _, fp32, int8, majority = document["rows"]
    assert int8["p50_us"] == pytest.approx(example.rows[3].single.p50 * 1e6, abs=0.1)  # type: ignore[union-attr]
    assert int8["p50_us"] < int8["p90_us"] < int8["p99_us"]
    assert int8["texts_per_s"] == pytest.approx(32 / 16e-3, rel=0.05)
    assert int8["speedup_low"] <= int8["speedup"] <= int8["speedup_high"]
    assert int8["speedup"] == pytest.approx(40, rel=0.05) and int8[
        "speedup_fastest_teacher"
    ] == pytest.approx(4, rel=0.05)
    assert teacher["speedup"] == 1.0
    assert (fp32["retention"], fp32["verdict"]) == (
        pytest.approx(0.88 / 0.9, abs=1e-6),
        "inconclusive",
    )
    assert (
        majority["p50_us"] is None
        and majority["threads"] is None
        and majority["kind"] == "baseline"
    )


def test_raw_values_are_in_the_document() -> None:
    document = report().to_json()
    raw = next(
        entry
        for entry in document["raw"]
        if (entry["subject"], entry["precision"]) == ("student", "int8")
    )
    single = np.array(raw["single_us"])
    assert single.shape == (25, 8)
    assert np.median(single) == pytest.approx(document["rows"][3]["p50_us"], abs=0.2)
    assert set(raw) >= {"single_us", "model_us", "batch_us"}


def test_numbers_that_are_not_finite_are_null() -> None:
    broken = replace(report().rows[0], value=math.nan, footprint=Footprint(peak_mb=math.inf))
    document = json.loads(one_line(replace(report(), rows=(broken,))), parse_constant=pytest.fail)
    assert document["rows"][0]["value"] is None and document["rows"][0]["peak_mb"] is None
    assert finite({"a": np.float32("nan"), "b": (np.int64(3), np.array([1.5, np.inf]))}) == {
        "a": None,
        "b": [3, [1.5, None]],
    }


def test_equal_reports_give_equal_lines() -> None:
    assert one_line(report()) == one_line(report())
    assert "\n" not in one_line(report("two\nlines"))


def test_the_table_fits_120_columns_and_shows_every_number() -> None:
    long = report("a-student-with-quite-a-long-name")
    text = render(long)
    assert max(len(line) for line in text.splitlines()) <= 120
    for cell in (
        "0.8700",
        "96.7 [95.7–97.7]",
        "inconclusive",
        "reference",
        "40.",
        "2000",
        "211 kB",
        "91.0 MB",
        "1234",
        "majority class",
        "not retained",
    ):
        assert cell in text, cell
    assert "…" not in render(report()), "a common name is not cut"
    assert "… onnx int8" in text, "of a long one the form stays"


@pytest.mark.parametrize("name", ["[bold]student", "[/]", "<script>", "a|b", "`x`", "**x**"])
def test_names_are_never_read_as_markup(name: str) -> None:
    example = report(name)
    assert name in render(example)
    page = markdown(example)
    assert "<script" not in page
    table = [line for line in page.splitlines() if line.startswith("|")]
    columns = {line.replace("\\|", "").count("|") for line in table}
    assert len(columns) == 1, "every row of the table has the same number of columns"


def test_rows_with_equal_warnings_share_a_line() -> None:
    few = Timings((np.array([1e-3] * 9 + [5e-3]),))
    example = report()
    rows = tuple(replace(r, single=few) if r.single else r for r in example.rows)
    lines = warnings(replace(example, rows=rows))
    assert lines[0] == "general note"
    unstable = [line for line in lines if "unstable: p99 is 4.6x p50" in line]
    assert (
        len(unstable) == 1
        and "student onnx fp32" in unstable[0]
        and "teacher torch fp32" in unstable[0]
    )


@pytest.mark.parametrize("value, notes", [(0.86, 0), (0.87, 0), (0.875, 1), (0.885, 2)])
def test_the_report_says_if_labels_alone_do_better(value: float, notes: int) -> None:
    """The students score 0.88 in fp32 and 0.87 in int8; rows with equal notes share a line."""
    baseline = Row("student baseline", "baseline", "torch", "fp32", None, value=value)
    example = report()
    lines = warnings(replace(example, rows=(*example.rows, baseline)))
    found = [line for line in lines if "trained on the labels alone scores higher" in line]
    assert len(found) == min(notes, 1)
    assert sum(line.partition(": ")[0].count("student onnx") for line in found) == notes


def test_the_report_repeats_the_reasons_to_doubt_its_scores() -> None:
    example = report()
    words = Row("tf-idf + logistic", "baseline", "simple", None, None, value=0.99)
    task = example.task | {"texts": 40}
    page = markdown(replace(example, rows=(*example.rows, words), task=task))
    assert "the test split has 40 texts" in page
    assert "a bag of words (TF-IDF with a linear model) scores 0.9900" in page
    assert "bag of words" not in markdown(example)
    assert result_warnings(example) == []


def test_the_report_warns_if_int8_is_not_faster() -> None:
    example = report()
    assert not any("int8 is" in line for line in warnings(example))
    fp32, int8 = example.rows[2], example.rows[3]
    slower = replace(int8, single=timings(2.4e-3, seed=1))
    lines = warnings(replace(example, rows=(fp32, slower)))
    expected = "student onnx int8: int8 is slower than fp32 here: 1.2"
    assert any(expected in line for line in lines)
    as_fast = replace(int8, single=timings(2e-3, seed=1))
    assert any(
        "int8 is not measurably faster than fp32 here" in line
        for line in warnings(replace(example, rows=(fp32, as_fast)))
    )


def test_the_page_explains_itself() -> None:
    page = markdown(report())
    for name, meaning in COLUMNS:
        assert f"**{name}**: {meaning}" in page
    for part in (
        "## Machine",
        "## Warnings and conditions",
        "numpy",
        "1 thread",
        "kdedge bench runs/toy",
    ):
        assert part in page


def test_a_report_without_labels_says_so() -> None:
    example = report()
    example = replace(
        example,
        task={**example.task, "measured": False},
        teacher={},
        rows=tuple(replace(r, value=None, retention=None) for r in example.rows),
    )
    assert "time alone" in render(example)
    assert example.to_json()["rows"][0]["metric"] is None
    assert "| – |" in markdown(example)


def test_a_report_is_written_completely_or_not_at_all(tmp_path: Path) -> None:
    path = write_report(report(), tmp_path / "new" / "bench")
    assert json.loads(path.read_text(encoding="utf-8")) == report().to_json()
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "report.html",
        "report.json",
        "report.md",
    ]
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="cannot be created"):
        write_report(report(), tmp_path / "file" / "bench")


def test_the_machine_is_described_without_names_or_paths() -> None:
    import platform

    described = machine.describe(2)
    assert (
        described["threads"] == 2
        and described["cpu"]
        and described["packages"]["numpy"] == np.__version__
    )
    assert CPU in described["providers"]
    text = json.dumps(described)
    assert platform.node() not in text or len(platform.node()) < 3
    assert str(Path.home()) not in text


def test_missing_instruction_sets_are_noted() -> None:
    bare = {"architecture": "x86_64", "flags": ["avx2"], "threads": 1, "cores": 2}
    assert ["no VNNI" in note for note in machine.notes(bare)] == [True]
    assert machine.notes({**bare, "flags": ["avx2", "avx512_vnni"]}) == []
    assert any(
        "4 threads were requested on 2 cores" in note
        for note in machine.notes({**bare, "threads": 4})
    )
    assert any(
        "asimddp" in note
        for note in machine.notes({**bare, "architecture": "aarch64", "flags": ["asimd"]})
    )
    assert machine.notes({**bare, "flags": None}) == []


def test_a_report_is_a_table_in_pandas() -> None:
    example = report()
    table = example.to_pandas()
    assert len(table) == len(example.rows)
    assert list(table["subject"]) == [row.subject for row in example.rows]
    assert table["p50_us"][3] == example.to_json()["rows"][3]["p50_us"]
    assert table["bytes"][3] == 211_000
    assert table["p50_us"].isna().tolist() == [False] * 4 + [True]


def test_without_pandas_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MachineError, match="needs pandas"):
        report().to_pandas()


def test_the_command_is_in_the_markdown_as_it_was_given() -> None:
    command = "kdedge bench 'a `b`' --text '*c*'"
    assert f"\n    {command}\n" in markdown(replace(report(), command=command))
