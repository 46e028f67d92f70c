"""The machine that a bench runs on, and the ssh command that starts a Python there."""

from __future__ import annotations

import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

from kdedge.errors import MachineError, UsageError

NAME = r"[A-Za-z0-9_][\w.-]*"
PATTERN = re.compile(
    rf"(?:(?P<user>{NAME})@)?(?P<host>{NAME}|\[[0-9A-Fa-f:.%\w]+\])(?::(?P<port>\d{{1,5}}))?"
)
"""`user@host:port`. No part can be read as an option of ssh or as syntax of a shell."""

PROGRAM = "import sys;r=sys.stdin.buffer;exec(r.read(int(r.readline())))"
"""Runs the program that follows on stdin. In double quotes, a shell changes nothing in it."""

CONNECT_SECONDS = 20
ALIVE_SECONDS = 15
"""Seconds of silence after which ssh tests the connection; it gives up after four tests."""


@dataclass(frozen=True)
class Target:
    """A machine that ssh reaches, and how to start Python on it.

    Attributes:
        destination: `host` or `user@host`, as ssh takes it.
        port: None: the one in ssh's configuration.
        python: Command or path of Python there, relative to the home directory.
        venv: Virtual environment there that has kdedge; None: a new one is made.
        ssh_config: Configuration of ssh; None: the user's own.
    """

    destination: str
    port: int | None = None
    python: str = "python3"
    venv: str | None = None
    ssh_config: Path | None = None

    @property
    def host(self) -> str:
        return self.destination.rpartition("@")[2]

    @property
    def interpreter(self) -> str:
        """The Python that runs the program."""
        if self.venv is None:
            return self.python.removeprefix("~/")
        return f"{self.venv.removeprefix('~/').rstrip('/')}/bin/python"

    def options(self) -> list[str]:
        """Return the options of ssh."""
        words = ["-T", "-o", f"ConnectTimeout={CONNECT_SECONDS}"]
        words += ["-o", f"ServerAliveInterval={ALIVE_SECONDS}", "-o", "ServerAliveCountMax=4"]
        if self.ssh_config is not None:
            words += ["-F", str(self.ssh_config)]
        if self.port is not None:
            words += ["-p", str(self.port)]
        return words

    def command(self) -> list[str]:
        """Return the command that runs `PROGRAM` on the target.

        Raises:
            MachineError: If ssh is not installed.
        """
        ssh = shutil.which("ssh")
        if ssh is None:
            raise MachineError(
                "a bench on another machine needs ssh",
                "there is no program ssh on the search path",
                "install OpenSSH's client, such as apt-get install openssh-client",
            )
        started = f'{shlex.quote(self.interpreter)} -I -c "{PROGRAM}"'
        return [ssh, *self.options(), "--", self.destination, started]


def parse_target(
    text: str, *, python: str = "python3", venv: str | None = None, ssh_config: Path | None = None
) -> Target:
    """Read `host`, `user@host` or `user@host:port`.

    Raises:
        UsageError: If the text has another form.
    """
    found = PATTERN.fullmatch(text)
    port = int(found["port"]) if found and found["port"] else None
    if found is None or (port is not None and not 0 < port < 1 << 16):
        raise UsageError(
            "a target is user@host or user@host:port",
            repr(text)[:200],
            "such as pi@192.168.1.20, or [fe80::1]:22 for an IPv6 address with a port",
        )
    host = found["host"].strip("[]")
    destination = host if found["user"] is None else f"{found['user']}@{host}"
    return Target(destination, port, python, venv, ssh_config)
