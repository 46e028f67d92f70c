"""Which process runs a trial, and whether it has ended."""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path

TOKEN = secrets.token_hex(4)
"""Tells this process from an earlier one with its number, such as 1 in a restarted container."""

UNKNOWN = "?"
"""The start time of a process on a system that does not say it."""


def this_process() -> str:
    """Return what tells this process from all others, as a trial records it."""
    number = os.getpid()
    return f"{socket.gethostname()} {number} {_start_time(number)} {TOKEN}"


def has_ended(process: str) -> bool:
    """Return whether a process of this machine has ended; other machines cannot be asked.

    Its number does not decide that alone: after a restart of a container, other processes and
    threads have the numbers of the earlier ones.
    """
    host, *identity = process.split(" ")
    if host != socket.gethostname():
        return False
    number, started = [*identity, UNKNOWN][:2]
    if int(number) == os.getpid():
        return process != this_process()
    return _start_time(int(number)) not in (started, UNKNOWN)


def _start_time(process: int) -> str:
    """Return when a process started, in ticks of the system's clock; "" if there is none."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    try:
        status = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return UNKNOWN
    # The name, in brackets, may hold spaces; the start is field 22 (proc(5)).
    return status.rpartition(")")[2].split()[19]
