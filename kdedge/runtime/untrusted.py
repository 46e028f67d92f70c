"""Try an untrusted bundle in a child process with limits on time and memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from kdedge import errors
from kdedge.errors import IntegrityError, KdedgeError, MachineError, first_line
from kdedge.runtime.bundle import Bundle

SECONDS = 60
"""Seconds of processor time that the child may use after its libraries are loaded."""

WAITING = 30
"""Seconds that loading the libraries and waiting for a processor may take in addition."""

MEMORY = 512 << 20
"""Bytes that the child may use beyond its libraries and four times the bundle's files."""

FAILED = 3
"""Exit code of a child that reports a KdedgeError on stdout."""


def try_bundle(bundle: Bundle, *, seconds: int = SECONDS, memory: int = MEMORY) -> None:
    """Open a bundle, verify its files and replay its golden texts in a child process.

    No check can predict the time and memory that a graph or a tokenizer needs. So a child process
    runs them first: if it exceeds the limits, only the child ends.

    Args:
        bundle: The bundle, of which only the manifest has been read.
        seconds: Processor time that the child may use after its libraries are loaded.
        memory: Bytes that the child may use beyond its libraries and four times the bundle's size.

    Raises:
        IntegrityError: If the child exceeds a limit, crashes, or refuses the bundle.
        MachineError: If this system cannot limit a process.
    """
    if sys.platform == "win32":
        raise MachineError(
            "this system cannot limit the memory of a process", sys.platform, "use Linux or macOS"
        )
    limit = memory + 4 * bundle.manifest.size()
    # -I ignores PYTHONPATH: the child gets the search path of this process.
    search_path = json.dumps([entry for entry in sys.path if entry])
    command = [sys.executable, "-I", "-c", CHILD, str(bundle.folder.resolve()), search_path]
    try:
        done = subprocess.run(
            [*command, str(limit), str(seconds)],
            capture_output=True,
            timeout=seconds + WAITING,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise _too_much(f"it did not finish within {seconds + WAITING} s") from error
    if done.returncode == FAILED:
        raise _reported(done.stdout)
    if done.returncode != 0:
        reason = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        detail = f"its process ended with code {done.returncode}: {' '.join(reason)}"
        allowed = f"it may use {limit / 1e6:,.0f} MB and {seconds} s of processor time"
        raise _too_much(f"{detail[:300]}; {allowed}")


CHILD = """
import json, sys
sys.path[:] = json.loads(sys.argv[2])
from kdedge.runtime.untrusted import run_child
run_child(sys.argv[1], int(sys.argv[3]), int(sys.argv[4]))
"""


def run_child(folder: str, memory: int, seconds: int) -> None:
    """Run in the child: set the limits, replay the bundle, and report an error as JSON."""
    from kdedge.runtime.golden import replay

    _limit(memory, seconds)
    try:
        opened = Bundle.open(Path(folder))
        opened.verify_files()
        replay(opened)
    except KdedgeError as error:
        report = [type(error).__name__, error.message, error.detail, error.hint]
        print(json.dumps(report))  # noqa: T201  the parent reads it
        sys.exit(FAILED)


def _limit(memory: int, seconds: int) -> None:
    """Limit the address space beyond what the libraries use now, and the processor time."""
    import resource

    used = _address_space()
    resource.setrlimit(resource.RLIMIT_AS, (used + memory, used + memory))
    own = resource.getrusage(resource.RUSAGE_SELF)
    end = int(own.ru_utime + own.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (end, end))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def _address_space() -> int:
    """Return the bytes of this process's address space; 1 GiB without /proc."""
    import resource

    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (OSError, ValueError):
        return 1 << 30
    return pages * resource.getpagesize()


def _reported(output: bytes) -> KdedgeError:
    """Return the error that the child reported."""
    try:
        name, message, detail, hint = json.loads(output.splitlines()[-1])
        kind = getattr(errors, name)
    except (ValueError, IndexError, AttributeError) as error:
        return _too_much(f"its process reported no reason: {first_line(error)}")
    made = kind(message, detail, hint)
    assert isinstance(made, KdedgeError)
    return made


def _too_much(detail: str) -> IntegrityError:
    return IntegrityError(
        "the bundle failed in a child process with limits", detail, "do not use this bundle"
    )
