"""Exceptions of any class end in an error with an exit code, never in a bare traceback."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from kdedge.cli.crash import EXIT_CODE, explain
from kdedge.cli.main import main


@click.command()
def fails() -> None:
    raise LookupError("no such thing")


def test_an_unknown_exception_exits_70_and_names_a_report(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["kdedge"])
    with pytest.raises(SystemExit) as stop:
        main(fails)
    assert stop.value.code == EXIT_CODE == 70
    (report,) = tmp_path.iterdir()
    printed = capsys.readouterr().err
    assert "LookupError" in printed and "no such thing" in printed and report.name in printed
    assert "Traceback" not in printed
    assert "Traceback" in report.read_text() and "command: kdedge\n" in report.read_text()


def test_a_report_that_cannot_be_written_is_printed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    monkeypatch.setattr(sys, "argv", ["kdedge"])
    with pytest.raises(SystemExit) as stop:
        main(fails)
    assert stop.value.code == EXIT_CODE
    assert "Traceback" in capsys.readouterr().err


class SafetensorsError(Exception):
    """As safetensors raises it: no OSError."""


@pytest.mark.parametrize(
    "error, message",
    [
        (OSError(errno.ENOSPC, "No space left on device", "x"), "the disk is full"),
        (SafetensorsError("I/O error: No space left on device (os error 28)"), "the disk is full"),
        (RuntimeError("PytorchStreamWriter failed writing file data/1"), "the disk is full"),
        (RuntimeError("[enforce fail] . unexpected pos 64 vs 0"), "the disk is full"),
        (RuntimeError("basic_ios::clear: iostream error"), "the disk is full"),
        (MemoryError(), "the memory is exhausted"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"), "memory is exhaust"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "the memory is exhausted"),
    ],
)
def test_faults_of_the_machine_exit_4(error: Exception, message: str) -> None:
    wrapped = ValueError("training failed")
    wrapped.__cause__ = error
    for met in (error, wrapped):
        explained = explain(met)
        assert message in explained.message
        assert explained.exit_code == 4 and explained.hint


def test_a_file_that_vanished_exits_4_and_is_named() -> None:
    gone = FileNotFoundError(errno.ENOENT, "No such file or directory", "runs/x")
    explained = explain(gone)
    assert explained.exit_code == 4 and "runs/x" in explained.detail
    other = KeyError("a fault of ours")
    other.__context__ = gone
    assert explain(other).exit_code == EXIT_CODE, "it was handled before the fault"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_under_stdout_exits_4() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "kdedge", "doctor"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
    assert done.returncode == 4, done.stderr
    assert "the disk is full" in done.stderr and "Traceback" not in done.stderr
