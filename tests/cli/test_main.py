"""The command line: fast help, an example for every command, errors with their exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest
from kdedge_process import call_kdedge, run_kdedge

from kdedge import __version__
from kdedge.cli.main import COMMANDS, load_command

ROOT = Path(__file__).resolve().parents[2]


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_every_command_ends_with_an_example(name: str) -> None:
    command = load_command(name)
    assert isinstance(command, click.Command)
    last_line = (command.help or "").strip().splitlines()[-1]
    assert last_line.strip().startswith(f"Example: kdedge {name}")


def test_help_names_every_command() -> None:
    done = call_kdedge("--help")
    assert done.returncode == 0 and all(name in done.stdout for name in COMMANDS)


def test_help_imports_no_heavy_package() -> None:
    heavy = {"torch", "transformers", "onnxruntime", "numpy", "pydantic", "rich"}
    done = run_python(
        "import sys; from kdedge.cli.main import cli; "
        "cli.main(['--help'], standalone_mode=False); "
        f"print(sorted({heavy!r} & set(sys.modules)))"
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", ["predict", "verify"])
def test_device_commands_import_no_training_package(name: str) -> None:
    done = run_python(
        "import sys; from kdedge.cli.main import load_command; "
        "from kdedge.io.optional import TRAINING_PACKAGES; "
        f"load_command({name!r}); print(sorted(set(TRAINING_PACKAGES) & set(sys.modules)))"
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


@pytest.mark.parametrize(
    "arguments, exit_code, message",
    [
        (["predict", "nowhere", "a text"], 2, "this is not a bundle"),
        (["verify", "nowhere"], 2, "this is not a bundle"),
        (["distill", "nowhere.toml"], 2, "the recipe cannot be read"),
        (["distill", "configs/quickstart.toml", "--set", "seeed=1"], 2, "did you mean seed?"),
        (["export", "configs"], 2, "not a run"),
        (["fly"], 2, "No such command"),
        (["distil"], 2, "Did you mean 'distill'?"),
        (["distill", "--treads", "1"], 2, "Did you mean one of: '--seeds', '--threads'"),
    ],
)
def test_errors_are_printed_on_stderr(arguments: list[str], exit_code: int, message: str) -> None:
    done = call_kdedge(*arguments)
    assert done.returncode == exit_code and message in done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""


def test_the_version_is_printed() -> None:
    assert __version__ in run_kdedge("--version").stdout


@pytest.mark.parametrize(
    "command, package, extra",
    [
        ("run", "pydantic", "kdedge-toolkit[train]"),
        ("export", "torch", "kdedge-toolkit[train]"),
        ("tune", "optuna", "kdedge-toolkit[train,tune]"),
    ],
)
def test_a_missing_package_is_reported_with_the_pip_line(
    command: str, package: str, extra: str
) -> None:
    done = run_python(
        f"import sys; sys.modules[{package!r}] = None; from kdedge.cli.main import main; "
        f"sys.argv = ['kdedge', {command!r}, 'r.toml']; main()"
    )
    assert done.returncode == 4 and f'pip install "{extra}"' in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command, is_resumable", [("doctor", False), ("distill", True)])
def test_a_terminated_command_exits_with_143(command: str, is_resumable: bool) -> None:
    done = run_python(
        f"import os, signal, sys, time, kdedge.cli.main as c; sys.argv = ['kdedge', {command!r}]; "
        "c.cli.main = lambda **_: os.kill(os.getpid(), signal.SIGTERM) or time.sleep(5); c.main()"
    )
    assert done.returncode == 143 and "terminated\n" in done.stderr
    assert ("run the same command to continue" in done.stderr) is is_resumable
    assert "Traceback" not in done.stderr
