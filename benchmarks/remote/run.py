"""Run a bench on a target: start the program there, forward its messages, keep its report."""

from __future__ import annotations

import base64
import json
import subprocess
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from kdedge.benchmarks.remote.failures import broken_off, killed, not_started, reported
from kdedge.benchmarks.remote.on_target import RESULT_FILES, STARTED
from kdedge.benchmarks.remote.request import Request
from kdedge.benchmarks.remote.target import Target

from kdedge.errors import MachineError
from kdedge.run.progress import Progress

KEPT_LINES = 8
"""Number of the target's last messages that an error quotes."""

MAX_GREETING = 1 << 20
"""Bytes that the target's login may print before the program starts."""

MAX_ANSWER = 512 << 20
"""Most bytes of the line of JSON."""

END_SECONDS = 30
"""Longest time for ssh to end after the last byte."""


@dataclass(frozen=True)
class RemoteResult:
    """The result of a bench on a target.

    Attributes:
        code: Exit code of `kdedge bench` there.
        files: Name of each file of the report -> its content.
    """

    code: int
    files: dict[str, bytes]

    def write(self, folder: Path) -> None:
        """Write the files of the report into a folder.

        Raises:
            MachineError: If the folder or a file cannot be written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, content in self.files.items():
                part = folder / f"{name}.part"
                part.write_bytes(content)
                part.replace(folder / name)
        except OSError as error:
            raise MachineError(
                "the report of the target cannot be written",
                f"{folder}: {error.strerror}",
                "free space, or name another folder with --out",
            ) from error


def bench_on_target(target: Target, request: Request, progress: Progress) -> RemoteResult:
    """Copy bundles, texts and kdedge to a target, bench there, and bring the report back.

    The target removes all copied files at the end, also if this process is stopped.

    Raises:
        MachineError: If the target cannot be reached, lacks something, or stops.
    """
    progress.say(f"connecting to {target.destination}")
    process = subprocess.Popen(
        target.command(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin and process.stdout and process.stderr
    lines: deque[str] = deque(maxlen=KEPT_LINES)
    reader = threading.Thread(target=_forward, args=(process.stderr, progress, lines), daemon=True)
    reader.start()
    try:
        started = _send_when_started(process.stdin, process.stdout, request)
        answer = process.stdout.readline(MAX_ANSWER) if started else b""
        with suppress(BrokenPipeError):
            process.stdin.close()
        code = process.wait(END_SECONDS)
        reader.join(END_SECONDS)
    except subprocess.TimeoutExpired:
        code = -1
    finally:
        # When ssh ends, the target's stdin ends, and then the target cleans up.
        process.kill()
        process.wait()
    if not started:
        raise not_started(target, code, lines)
    return _read_answer(answer, target, code, lines)


def _send_when_started(stdin: IO[bytes], stdout: IO[bytes], request: Request) -> bool:
    """Send the request, and return whether the program has started."""
    with suppress(BrokenPipeError):  # stderr has the reason.
        request.send(stdin)
    read = 0
    while read < MAX_GREETING:
        line = stdout.readline(MAX_GREETING)
        if line.endswith(STARTED):
            return True
        if not line:
            return False
        read += len(line)
    return False


def _forward(stream: IO[bytes], progress: Progress, lines: deque[str]) -> None:
    """Show the target's messages, and keep the last ones."""
    for raw in stream:
        line = raw.decode("utf-8", "replace").rstrip("\r\n")
        lines.append(line)
        progress.say(line)


def _read_answer(answer: bytes, target: Target, code: int, lines: deque[str]) -> RemoteResult:
    try:
        document: Any = json.loads(answer)
        if "reason" in document:
            raise reported(str(document["reason"]), str(document["detail"]))
        files = {}
        for name in RESULT_FILES:
            if name in document["files"]:
                files[name] = base64.b64decode(document["files"][name])
        result = RemoteResult(int(document["code"]), files)
    except (ValueError, KeyError, TypeError) as error:
        raise broken_off(target, code, lines) from error
    if result.code < 0:
        raise killed(-result.code)
    return result
