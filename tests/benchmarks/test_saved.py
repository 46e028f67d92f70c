"""A saved report is shown again as it was, and only if nothing that decides it has changed."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kdedge.benchmarks import render
from kdedge.benchmarks.options import Options
from kdedge.benchmarks.render import write_report
from kdedge.benchmarks.report import Report, one_line, warnings
from kdedge.benchmarks.saved import SavedReport, saved_report
from kdedge.benchmarks.summary import summary
from reports import report
from rich.console import Console

from kdedge import __version__
from kdedge.cli.bench_output import rich_table

SETTINGS = {"providers": ("cpu",), "run": "toy", "students": "all"}
HASHES = {"toy/student": "aa", "toy/bundle": "bb"}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    """The folder of a report that all tests of this file share, and the report."""
    folder = tmp_path_factory.mktemp("saved")
    return folder, write(folder)


@pytest.fixture
def saved(written: tuple[Path, Report], tmp_path: Path) -> Path:
    """A copy of the report's folder, for tests that change it."""
    return shutil.copytree(written[0], tmp_path / "saved")


def write(folder: Path) -> Report:
    """Write a report on the run toy as kdedge bench does; one student predicts one label."""
    example = report()
    rows = (*example.rows[:3], replace(example.rows[3], only_prediction="x"), example.rows[4])
    example = replace(
        example, rows=rows, kdedge=__version__, settings=SETTINGS, measured_from=HASHES
    )
    write_report(example, folder)
    return example


def test_a_report_that_was_not_written_to_its_end_is_not_kept(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full after report.json: the page is that of the earlier report."""
    real = render.write_atomic

    def fill_disk(path: Path, content: str) -> None:
        if path.name != "report.json":
            raise OSError(28, "No space left on device")
        real(path, content)

    monkeypatch.setattr(render, "write_atomic", fill_disk)
    with pytest.raises(OSError, match="No space"):
        write(saved)
    assert read(saved) is None


def read(folder: Path, **changes: Any) -> SavedReport | None:
    settings = SETTINGS | changes.get("settings", {})
    return saved_report(folder, settings, HASHES | changes.get("hashes", {}), Options())


def table(example: Report) -> str:
    console = Console(file=io.StringIO(), width=120, legacy_windows=False)
    console.print(rich_table(example))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_a_saved_report_shows_what_the_first_one_showed(written: tuple[Path, Report]) -> None:
    folder, first = written
    again = read(folder)
    assert again is not None
    assert table(again) == table(first)
    assert summary(again) == summary(first)
    assert sorted(warnings(again)) == sorted(warnings(first))
    assert any("predicts 'x' for every text" in line for line in warnings(again))
    assert one_line(again) + "\n" == (folder / "report.json").read_text()


@pytest.mark.parametrize(
    "changes",
    [
        {"hashes": {"toy/bundle": "cc"}},
        {"hashes": {"toy/other": "dd"}},
        {"settings": {"providers": ("openvino",)}},
    ],
)
def test_another_bundle_or_setting_is_measured_again(
    written: tuple[Path, Report], changes: dict[str, Any]
) -> None:
    assert read(written[0]) is not None
    assert read(written[0], **changes) is None


def other_machine(document: dict[str, Any]) -> None:
    document["machine"]["cpu"] = "another"


def other_version(document: dict[str, Any]) -> None:
    document["kdedge"] = "0.0.1"


def no_raw_values(document: dict[str, Any]) -> None:
    document["raw"] = []


def no_rows(document: dict[str, Any]) -> None:
    del document["rows"]


@pytest.mark.parametrize("change", [other_machine, other_version, no_raw_values, no_rows])
def test_a_report_from_elsewhere_or_a_broken_one_is_measured_again(
    saved: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    document = json.loads((saved / "report.json").read_text())
    change(document)
    (saved / "report.json").write_text(json.dumps(document))
    assert read(saved) is None


def test_a_report_without_its_page_is_measured_again(saved: Path) -> None:
    (saved / "report.html").unlink()
    assert read(saved) is None
