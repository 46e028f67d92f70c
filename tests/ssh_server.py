"""An ssh server on this machine, for tests that log in: own host key, own port, own settings."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

SERVER_CONFIG = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
PidFile none
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
SetEnv HOME={home}
"""

CLIENT_CONFIG = """\
Host *
  IdentityFile {folder}/user_key
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known_hosts
  StrictHostKeyChecking accept-new
  BatchMode yes
"""


@dataclass(frozen=True)
class SshServer:
    """A running server.

    Attributes:
        destination: For `kdedge bench --remote`.
        config: For `--ssh-config`.
        home: The home directory of who logs in.
    """

    destination: str
    config: Path
    home: Path


def require_sshd() -> str:
    """Return the path of sshd; without it, tests fail in CI and skip elsewhere."""
    found = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    if found and shutil.which("ssh"):
        return found
    message = "openssh-server is not installed"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@contextmanager
def running_server(folder: Path) -> Iterator[SshServer]:
    """Run an sshd on the loopback address that only the test's own key can enter."""
    sshd = require_sshd()
    home = folder / "home"
    home.mkdir()
    for name in ("host_key", "user_key"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True
        )
    port = _free_port()
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # A server of root does not start without it.
    settings = folder / "sshd_config"
    settings.write_text(SERVER_CONFIG.format(port=port, folder=folder, home=home))
    config = folder / "ssh_config"
    config.write_text(CLIENT_CONFIG.format(folder=folder))
    with (folder / "sshd.log").open("wb") as log:
        process = subprocess.Popen([sshd, "-D", "-e", "-f", settings], stderr=log)
        try:
            _wait_for(port, process, folder / "sshd.log")
            yield SshServer(f"{getpass.getuser()}@127.0.0.1:{port}", config, home)
        finally:
            process.terminate()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the server answers."""
    deadline = time.monotonic() + 20
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(log.read_text())
