"""Where a report goes, and that no report of other settings is replaced."""

from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from kdedge.benchmarks.options import DEFAULTS, Options
from kdedge.benchmarks.output_folder import check_replaceable, report_folder
from kdedge.benchmarks.render import write_report
from reports import report

from kdedge.errors import UsageError

BENCH = Path("runs/toy/bench")


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (DEFAULTS, "bench"),
        (Options(seconds=60, repeats=100), "bench"),
        (Options(threads=4), "bench-threads-4"),
        (Options(providers=("cpu", "cuda"), batch=8), "bench-cpu-cuda-batch-8"),
        (Options(target=0.975, teacher=False), "bench-target-0.975-no-teacher"),
    ],
)
def test_settings_decide_the_folder(options: Options, name: str) -> None:
    assert report_folder(BENCH, options) == BENCH.with_name(name)


def test_a_data_file_is_part_of_the_name() -> None:
    folder = report_folder(Path("bench/toy"), DEFAULTS, Path("/elsewhere/my test set.csv"))
    assert folder == Path("bench/toy-data-my-test-set")


def settings(options: Options = DEFAULTS, **more: Any) -> dict[str, Any]:
    return {**asdict(options), "run": "toy", "students": "all", **more}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reports") / "bench"
    write_report(replace(report(), settings=settings()), folder)
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """The folder of a report with default settings."""
    shutil.copytree(written, tmp_path / "bench")
    return tmp_path / "bench"


def test_a_report_of_the_same_settings_is_replaced(folder: Path) -> None:
    check_replaceable(folder, settings())
    check_replaceable(folder, settings(Options(seconds=60, repeats=8)))
    check_replaceable(folder.with_name("new"), settings(Options(threads=2)))


@pytest.mark.parametrize(
    ("other", "detail"),
    [
        (settings(Options(threads=2)), "threads: 1 there, 2 now"),
        (settings(Options(providers=("cuda",))), "providers: cpu there, cuda now"),
        (settings(students=["small"]), "students: all there, small now"),
        (settings(data={"file": "t.csv", "sha256": "ab" * 32}), "data: not set there, file t.csv"),
    ],
)
def test_a_report_of_other_settings_is_kept(
    folder: Path, other: dict[str, Any], detail: str
) -> None:
    with pytest.raises(UsageError, match="other settings") as caught:
        check_replaceable(folder, other)
    assert detail in caught.value.detail and str(folder) in caught.value.detail
    assert "--out" in caught.value.hint


@pytest.mark.parametrize("name", ["report.md", "report.html"])
def test_a_page_without_a_report_is_kept(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(UsageError, match="would replace") as caught:
        check_replaceable(tmp_path, settings())
    assert name in caught.value.detail


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"settings": 3}', '{"settings": null}'])
def test_a_file_that_is_no_report_is_kept(tmp_path: Path, content: str) -> None:
    (tmp_path / "report.json").write_text(content)
    with pytest.raises(UsageError, match="not a report"):
        check_replaceable(tmp_path, settings())
