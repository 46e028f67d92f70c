"""`kdedge bench compare`: one page from several reports, and what cannot be compared."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from browser import measure, require_chromium
from click.testing import CliRunner
from kdedge.benchmarks.compare import (
    differences,
    read_reports,
    rows_of,
    scores,
    throughputs,
    times,
)
from kdedge.benchmarks.compare_page import compare_reports
from kdedge.benchmarks.render import write_report
from kdedge.benchmarks.report import Report
from reports import report, timings

from kdedge.cli.bench import bench
from kdedge.errors import DataError, UsageError

DIGEST = "a" * 64
Edit = Callable[[dict[str, Any]], object]


def example(name: str = "student") -> Report:
    found = report(name)
    task = {**found.task, "digest": DIGEST}
    machine = {**found.machine, "cpu": "big CPU", "packages": {"numpy": "2.0", "torch": "2.9"}}
    return replace(found, task=task, machine=machine, settings={"batch": 32, "run": "toy"})


def on_board(found: Report) -> Report:
    """The same bundles on a slower machine without torch."""
    rows = []
    for row in found.rows[2:4]:
        assert row.single is not None
        rows.append(replace(row, single=timings(10 * row.single.p50), value=0.865))
    machine = {**found.machine, "cpu": "small CPU", "threads": 2, "packages": {"numpy": "2.1"}}
    return replace(found, rows=tuple(rows), machine=machine, settings={"batch": 8, "run": "copy"})


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reports")
    write_report(example(), folder / "lab")
    write_report(on_board(example()), folder / "board")
    return folder


@pytest.fixture
def files(written: Path, tmp_path: Path) -> list[Path]:
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    return [tmp_path / "lab" / "report.json", tmp_path / "board" / "report.json"]


def edit(path: Path, change: Edit) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_only_what_differs_is_listed(files: list[Path]) -> None:
    table = differences(read_reports(files))
    assert table.header == ("fact", "lab", "board")
    assert set(table.rows) == {
        ("cpu", "big CPU", "small CPU"),
        ("threads", "1", "2"),
        ("numpy", "2.0", "2.1"),
        ("torch", "2.9", "–"),
        ("setting batch", "32", "8"),
    }


def test_files_of_other_sizes_are_listed(files: list[Path]) -> None:
    edit(files[1], lambda document: document["rows"][1].update(bytes=311_000))
    rows = differences(read_reports(files)).rows
    assert ("size of student onnx int8", "211 kB", "311 kB") in rows


def test_rows_are_matched_by_their_label(files: list[Path]) -> None:
    reports = read_reports(files)
    document = json.loads(files[1].read_text())
    of_board = {row["precision"]: row for row in document["rows"]}
    p50 = {row[0]: row[1:] for row in times(reports).rows}
    assert p50["teacher torch fp32"][1] == "–"
    assert p50["student onnx int8"][1] == f"{of_board['int8']['p50_us'] / 1e3:.1f} ms"
    assert "majority class" not in p50
    speed = {row[0]: row[1:] for row in throughputs(reports).rows}
    assert speed["student onnx fp32"][1] == f"{of_board['fp32']['texts_per_s']:.0f}"
    assert {row[0]: row[1:] for row in scores(reports).rows}["student onnx int8"] == (
        "0.8700",
        "0.8650",
    )
    assert [len(rows) for rows in rows_of(reports).values()] == [2] * 5


def test_reports_are_named_by_file_or_folder(files: list[Path], tmp_path: Path) -> None:
    other = tmp_path / "other" / "lab"
    other.mkdir(parents=True)
    copies = [other / "report.json", tmp_path / "server.json"]
    for copy in copies:
        copy.write_bytes(files[0].read_bytes())
    names = [each.name for each in read_reports([*files, *copies])]
    assert names == ["lab", "board", "lab (2)", "server"]


def test_the_command_writes_a_page(files: list[Path], tmp_path: Path) -> None:
    page = tmp_path / "machines.html"
    words = ["compare", *map(str, files), "--out", str(page)]
    done = CliRunner().invoke(bench, words, catch_exceptions=False)
    assert done.exit_code == 0 and "machines.html" in done.output
    text = page.read_text()
    for part in ("small CPU", "0.8650", "kdedge bench runs/toy", "board", 'id="times-wide"'):
        assert part in text
    assert "<script" not in text and "://" not in text


def test_names_stay_text(tmp_path: Path) -> None:
    folders = [tmp_path / "<b>1", tmp_path / "{{ 7*7 }}"]
    for folder in folders:
        write_report(replace(example("<script>"), command="<i>"), folder)
    compare_reports([folder / "report.json" for folder in folders], tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "<script>" not in text and "<b>1" not in text and "<i>" not in text
    assert "&lt;script&gt; onnx int8" in text and "{{ 7*7 }}" in text


# What cannot be compared


def test_other_texts_are_refused(files: list[Path], tmp_path: Path) -> None:
    edit(files[1], lambda document: document["task"].update(digest="b" * 64))
    page = tmp_path / "page.html"
    with pytest.raises(DataError, match="different texts") as caught:
        compare_reports(files, page)
    assert "lab: 300 texts, digest aaaaaaaaaaaa" in caught.value.detail
    assert not page.exists()


def test_other_tasks_are_refused(files: list[Path]) -> None:
    edit(files[1], lambda document: document["task"].update(metric="macro_f1"))
    with pytest.raises(UsageError, match="different tasks") as caught:
        read_reports(files)
    assert "board: metric macro_f1" in caught.value.detail


def test_the_page_never_replaces_a_report(files: list[Path]) -> None:
    before = files[0].read_bytes()
    with pytest.raises(UsageError, match="would replace another file"):
        compare_reports(files, files[0])
    assert files[0].read_bytes() == before


def test_the_page_replaces_the_page_of_a_comparison_alone(files: list[Path]) -> None:
    page = files[0].with_name("report.html")
    before = page.read_bytes()
    with pytest.raises(UsageError, match="would replace another file"):
        compare_reports(files, page)
    assert page.read_bytes() == before
    page.unlink()
    compare_reports(files, page)
    compare_reports(files, page)


def test_a_run_and_its_bundle_alone_have_the_same_subjects(files: list[Path]) -> None:
    """A bundle alone is named after its run and its student."""

    def rename(document: dict[str, Any]) -> None:
        for row in (*document["rows"], *document["raw"]):
            row["subject"] = f"{document['task']['name']}-{row['subject']}"

    apart = rows_of(read_reports(files))
    edit(files[1], rename)
    assert list(rows_of(read_reports(files))) == list(apart)


def test_the_warnings_of_every_report_are_on_the_page(files: list[Path], tmp_path: Path) -> None:
    edit(files[1], lambda document: document["rows"][0]["notes"].append("unstable: p99 is high"))
    page = tmp_path / "new" / "page.html"
    compare_reports(files, page)
    assert "<li>board, student onnx fp32: unstable: p99 is high</li>" in page.read_text()


def test_one_report_is_not_a_comparison(files: list[Path]) -> None:
    with pytest.raises(UsageError, match="nothing to compare"):
        read_reports(files[:1])


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"rows": []}', '{"rows": [{}], "raw": []}'])
def test_a_file_that_is_no_report_is_named(content: str, files: list[Path]) -> None:
    files[1].write_text(content)
    with pytest.raises(DataError, match="report") as caught:
        read_reports(files)
    assert str(files[1]) in caught.value.detail


def test_a_report_of_an_earlier_version_is_refused(files: list[Path]) -> None:
    edit(files[0], lambda document: document["task"].pop("digest"))
    with pytest.raises(DataError, match="not a report of this version"):
        read_reports(files)


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_fits_its_window(
    files: list[Path], width: int, dark: bool, tmp_path: Path
) -> None:
    require_chromium()
    page = tmp_path / "page.html"
    compare_reports(files, page)
    measured = measure(page, width, dark=dark, folder=tmp_path)
    assert measured["innerWidth"] == width >= measured["scrollWidth"]
    assert len(measured["pictures"]) == 1 and max(measured["pictures"]) <= width
