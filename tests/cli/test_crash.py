"""Exceptions of any class end in an error with an exit code, never in a bare traceback."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import click
import factories
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


def test_an_error_of_the_system_without_a_file_name_exits_4() -> None:
    """As of a write beyond the largest allowed file, or in a folder that was removed."""
    for number in (errno.EFBIG, errno.ENOENT):
        explained = explain(OSError(number, os.strerror(number)))
        assert explained.exit_code == 4 and os.strerror(number) in explained.detail


@pytest.mark.skipif(os.name != "posix", reason="a folder in use cannot be removed")
def test_a_removed_current_folder_exits_4(tmp_path: Path) -> None:
    program = (
        "import os, runpy\nos.rmdir(os.getcwd())\nrunpy.run_module('kdedge', run_name='__main__')"
    )
    gone = tmp_path / "gone"
    gone.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", program, "info", "./bundle"],
        cwd=gone,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 4, done.stderr
    assert "current folder" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_characters_that_stdout_does_not_have_are_escapes(form: list[str], tmp_path: Path) -> None:
    """As those of Chinese in a console of Windows."""
    table = tmp_path / "texts.csv"
    table.write_text("text\nthe film 好 👍\n", encoding="utf-8")
    bundle = str(factories.tiny_bundle())
    done = subprocess.run(
        [sys.executable, "-m", "kdedge", "predict", bundle, "--file", str(table), *form],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
    )
    assert done.returncode == 0, done.stderr
    printed = done.stdout.decode("ascii")
    if form:
        assert json.loads(printed)["text"] == "the film 好 👍"
    else:
        assert "the film \\u597d \\U0001f44d" in printed


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


@pytest.mark.parametrize(
    ("error", "traceback"), [(OSError(errno.ENOSPC, "full"), False), (ValueError("odd"), True)]
)
def test_a_thread_that_finds_the_disk_full_is_silent(
    error: Exception,
    traceback: bool,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """TensorBoard writes in a thread; the main thread reports the same full disk."""
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)

    def write() -> None:
        raise error

    @click.command()
    def command() -> None:
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()

    monkeypatch.setattr(sys, "argv", ["kdedge"])
    main(command)
    assert ("Traceback" in capsys.readouterr().err) == traceback
