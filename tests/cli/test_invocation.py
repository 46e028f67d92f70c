"""The recorded command: everything that was given, quoted for a shell."""

from __future__ import annotations

import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from kdedge.cli.invocation import command_line


@click.command()
@click.argument("targets", nargs=-1, type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path))
@click.option("--provider", "providers", multiple=True, default=("cpu",))
@click.option("-t", "--threads", type=int, default=1)
@click.option("--teacher/--no-teacher", default=True)
@click.option("--json", "as_json", is_flag=True)
def bench(**values: object) -> None:
    click.echo(command_line(click.get_current_context()))


@pytest.mark.parametrize(
    "words",
    [
        ["runs/quickstart"],
        ["a b", "--data", "it's $HOME; `x`.csv"],
        ["a", "--provider", "cpu", "--provider", "cuda", "--threads", "4"],
        ["a", "b", "--no-teacher", "--json"],
        ["a", "--threads", "1", "--teacher"],
    ],
)
def test_the_command_is_recorded_as_it_was_given(words: list[str]) -> None:
    shown = CliRunner().invoke(bench, words, catch_exceptions=False).stdout
    assert shlex.split(shown) == ["kdedge", "bench", *words]


def test_defaults_are_not_recorded_and_short_options_are_written_out() -> None:
    shown = CliRunner().invoke(bench, ["-t", "2", "a"], catch_exceptions=False).stdout
    assert shown == "kdedge bench a --threads 2\n"


def test_absolute_paths_lose_the_folders_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [str(tmp_path / "runs" / "toy"), "--data", "/home/someone/texts.csv"]
    shown = CliRunner().invoke(bench, words, catch_exceptions=False).stdout
    assert shown == "kdedge bench runs/toy --data texts.csv\n"
