"""What commands print: tables in 80 columns, progress in a log, escapes."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from kdedge.cli import console as module
from kdedge.cli.console import ConsoleProgress, make_table, size_text
from kdedge.cli.distill import scores_table
from kdedge.distillation.scores import ModelScores


def rendered(table: object, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_table_of_scores_fits_80_columns() -> None:
    rows = []
    intervals = {}
    for model in ("teacher", "a-student-with-a-name", "a-student-with-a-name baseline"):
        rows.append(ModelScores(model, "macro_f1", 0.9, 0.91, 109_482_240, 0.99))
        intervals[model] = (0.8812, 0.9334)
    text = rendered(scores_table("r", rows, intervals))
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("0.9100") == 3 and text.count("[0.8812-0.9334]") == 3
    assert text.count("a-student-with-a-name") == 2
    for word in ("109,482,240", "validation", "retention", "parameters", "baseline"):
        assert word in text, text


def test_cells_are_plain_text() -> None:
    table = make_table("t", ["label"], left=("label",))
    table.add_row("[bold]a\x1b[2J\u202eb[/]")
    assert r"[bold]a\x1b[2J\u202eb[/]" in rendered(table)


def test_facts_about_the_data_are_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    progress = ConsoleProgress()
    for line in ("data: 5 train", "export", "data: 5 train", "export"):
        progress.say(line)
    assert capsys.readouterr().err.splitlines() == ["data: 5 train", "export", "export"]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


def lines_of_a_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], seconds: float
) -> list[str]:
    """Report 200 steps that take `seconds` each."""
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    progress = ConsoleProgress()
    progress.start("work", 200)
    for done in range(1, 201):
        clock.now += seconds
        progress.advance(done)
    progress.finish()
    return capsys.readouterr().err.splitlines()


def test_a_log_has_a_line_per_ten_percent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = lines_of_a_log(monkeypatch, capsys, seconds=1.0)
    assert [line.partition(",")[0] for line in lines[:-1]] == [
        f"work: {done}/200 ({done // 2} %)" for done in range(20, 201, 20)
    ]
    assert lines[-1] == "work: done in 3 min 20 s"


def test_a_log_of_quick_work_has_only_its_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lines_of_a_log(monkeypatch, capsys, seconds=0.001) == ["work: done in 0 s"]


@pytest.mark.parametrize(
    "count, text", [(0, "0 B"), (999, "999 B"), (1000, "1.0 KB"), (2_500_000, "2.5 MB")]
)
def test_sizes_have_a_unit(count: int, text: str) -> None:
    assert size_text(count) == text
