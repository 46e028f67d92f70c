"""Errors of a bench on another machine, for each way in which it can fail."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from kdedge.benchmarks.remote.target import Target

from kdedge.errors import KdedgeError, MachineError

SSH_FAILED = 255
"""Exit code of ssh for an error of its own, or for a connection that broke."""

NOT_RUN = (126, 127)
"""Exit codes of a shell for a command that it cannot run."""

REASONS: Mapping[str, tuple[str, str]] = {
    "python": (
        "the target's Python is too old: kdedge needs 3.11 or newer",
        "install a newer one there, and name it with --remote-python",
    ),
    "disk": (
        "the target's disk is full",
        "free about 400 MB in the home directory there, or install kdedge there once and name its"
        " virtual environment with --remote-venv; what was copied is removed again",
    ),
    "venv": (
        "the target's Python cannot make a virtual environment",
        "install it there, on Debian with apt-get install python3-venv; or name one that has"
        " kdedge with --remote-venv",
    ),
    "install": (
        "kdedge cannot be installed on the target",
        "without a network there, give a folder of wheels for its system and Python with --wheels",
    ),
    "kdedge": (
        "the virtual environment of --remote-venv has no kdedge",
        "pip install kdedge-toolkit in it, or leave --remote-venv out",
    ),
    "system": (
        "the target cannot prepare the bench",
        "check the home directory and the free space there",
    ),
}
"""Reason that the program on the target reports -> message and hint."""


def reported(reason: str, detail: str) -> KdedgeError:
    """Return the error that the program on the target has reported."""
    message, hint = REASONS.get(reason, REASONS["system"])
    return MachineError(message, detail, hint)


def not_started(target: Target, code: int, lines: Sequence[str]) -> KdedgeError:
    """Return the error for a target on which the program did not start."""
    detail = "\n".join([f"{target.destination}: ssh ended with code {code}", *lines])
    if code == SSH_FAILED:
        port = [] if target.port is None else ["-p", str(target.port)]
        command = shlex.join(["ssh", *port, target.destination, "true"])
        return MachineError(
            "the target cannot be reached over ssh",
            detail,
            f"`{command}` must work first: check name, port, key and network",
        )
    if code in NOT_RUN:
        return MachineError(
            "the target cannot run this Python",
            detail,
            "install Python 3.11 or newer there, or name it with --remote-python",
        )
    return MachineError(
        "the target's Python did not start the bench",
        detail,
        f"log in and try `{shlex.quote(target.interpreter)} -c 1`",
    )


def broken_off(target: Target, code: int, lines: Sequence[str]) -> KdedgeError:
    """Return the error for a bench that began, and sent no result."""
    return MachineError(
        "the connection to the target broke during the bench",
        "\n".join([f"{target.destination}: ssh ended with code {code}", *lines]),
        "run it again; the target removes its files as soon as it finds the connection closed",
    )


def killed(signal_number: int) -> KdedgeError:
    """Return the error for a bench that a signal ended on the target."""
    return MachineError(
        "the bench was killed on the target",
        f"signal {signal_number}",
        "signal 9 often means that its memory was full: measure fewer texts with --data, or stop"
        " other programs there",
    )
