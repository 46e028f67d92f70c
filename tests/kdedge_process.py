"""Run kdedge's command line from a checkout that may not be installed."""

from __future__ import annotations

import io
import multiprocessing
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def kdedge_command(*arguments: str) -> list[str]:
    """Return the command line that starts kdedge."""
    return [sys.executable, __file__, *arguments]


def run_kdedge(
    *arguments: str, folder: Path = ROOT, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run kdedge as a process of its own in a folder, and capture its output."""
    return subprocess.run(
        kdedge_command(*arguments),
        capture_output=True,
        text=True,
        timeout=400,
        cwd=folder,
        env={**os.environ, "COLUMNS": "200", **environment},
    )


def call_kdedge(
    *arguments: str, folder: Path = ROOT, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Do the same as `run_kdedge` in this process, which saves the time of all imports.

    Not for commands that train, read stdin or depend on what is imported.
    """
    from kdedge.cli.main import main

    code = 0
    stdout, stderr = io.StringIO(), io.StringIO()
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(stdout), redirect_stderr(stderr):
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["kdedge", *arguments])
        for name, value in {"COLUMNS": "200", **environment}.items():
            patch.setenv(name, value)
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        finally:
            signal.signal(signal.SIGTERM, handler)
    return subprocess.CompletedProcess(arguments, code, stdout.getvalue(), stderr.getvalue())


def fork_kdedge(*arguments: str, folder: Path, output: Path) -> ForkServerProcess:
    """Start kdedge in a copy of a process that has imported torch, which saves seconds.

    Args:
        folder: The working directory.
        output: File for everything that is printed.

    Returns:
        The process; its group has the same number. Training saves a checkpoint at every step.
    """
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(["torch", "transformers.trainer", "onnxruntime"])
    process = forks.Process(target=_run_here, args=(arguments, str(folder), str(output)))
    process.start()
    return process


def _run_here(arguments: tuple[str, ...], folder: str, output: str) -> None:
    """Be a process of kdedge."""
    os.setsid()
    os.chdir(folder)
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.argv = ["kdedge", *arguments]
    import conftest  # noqa: F401

    from kdedge.cli.main import main
    from kdedge.nn import training_callbacks

    training_callbacks.SAVE_SECONDS = 0.0
    main()


@contextmanager
def one_core() -> Iterator[None]:
    """Let this thread, and the processes it starts, use one core.

    Training takes as many threads as there are cores. Several such processes at once would wait for
    each other most of the time.
    """
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {random.choice(sorted(cores))})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    import conftest  # noqa: F401

    from kdedge.cli.main import main

    main()
