"""`kdedge bench --remote` against an ssh server on this machine."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import factories
import pytest
from kdedge.benchmarks.remote.on_target import _reason
from kdedge.benchmarks.remote.target import parse_target
from kdedge.benchmarks.remote.wheel import write_wheel
from kdedge_process import call_kdedge, kdedge_command
from ssh_server import SshServer, running_server

from kdedge.errors import UsageError

HOSTILE = "-x $(touch HACKED) `touch HACKED`;'\"\\ \n é"
"""Part of file names that a shell must never read."""

VENV = Path(sys.prefix)
WAITING = 60
"""Most seconds in which the target must have cleaned up."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with running_server(tmp_path_factory.mktemp("ssh")) as server:
        # A login that greets must not disturb the protocol.
        (server.home / ".bashrc").write_text("echo 'welcome to the board'\n")
        yield server


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(factories.tiny_bundle("bilstm"), tmp_path / "bilstm"))


def remote_words(bundle: Path, server: SshServer, *words: object) -> list[str]:
    """Return the arguments of a short bench on the server."""
    target = ["--remote", server.destination, "--ssh-config", str(server.config)]
    return ["bench", str(bundle), "--repeats", "2", *target, *map(str, words)]


def bench(bundle: Path, server: SshServer, *words: object) -> subprocess.CompletedProcess[str]:
    return call_kdedge(*remote_words(bundle, server, *words), folder=bundle.parent)


def copied(server: SshServer) -> list[Path]:
    """List what is in the home directory of the target."""
    return [path for path in server.home.iterdir() if path.name != ".bashrc"]


def python_that_first_runs(server: SshServer, code: str) -> str:
    """Write a Python for the target that runs `code` before anything else; return its name."""
    script = server.home.parent / "python"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -I -c "{code}\n$3"\n')
    script.chmod(0o755)
    return str(script)


# A bench that works


@pytest.mark.slow
def test_hostile_file_names_are_only_names(bundle: Path, server: SshServer) -> None:
    folder = bundle.rename(bundle.parent / f"bundle {HOSTILE}")
    data = bundle.parent / f"{HOSTILE}.csv"
    rows = ["the film was lovely,good", "the film was grim,bad"] * 5
    data.write_text("\n".join(["--json,my label", *rows]) + "\n")
    done = bench(
        folder,
        server,
        *("--data", data, "--text=--json", "--label=my label", "--remote-venv", VENV),
        *("--out", bundle.parent / "report", "--json"),
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout.splitlines()[-1])
    assert document == json.loads((bundle.parent / "report" / "report.json").read_text())
    assert (document["task"]["texts"], document["task"]["measured"]) == (10, True)
    assert {row["precision"] for row in document["rows"]} == {"fp32", "int8"}
    assert document["settings"]["bundles"] == [folder.name]
    assert (bundle.parent / "report" / "report.html").stat().st_size > 1000
    assert copied(server) == []
    assert not list(bundle.parent.rglob("HACKED")) and not list(server.home.rglob("HACKED"))
    assert "welcome" not in done.stdout


@pytest.mark.slow
def test_the_exit_code_is_that_of_the_target(bundle: Path, server: SshServer) -> None:
    """There is no such provider on the target: its own error and code come back."""
    done = bench(bundle, server, "--remote-venv", VENV, "--provider", "cuda")
    assert done.returncode == 4
    assert "CUDAExecutionProvider" in done.stderr
    assert copied(server) == []
    assert not (bundle.parent / "bench").exists()


# A bench that fails


def test_an_unreachable_target(bundle: Path, server: SshServer) -> None:
    done = call_kdedge(
        *("bench", str(bundle), "--remote", "nobody@127.0.0.1:1", "--ssh-config"),
        str(server.config),
    )
    assert done.returncode == 4
    assert "cannot be reached over ssh" in done.stderr
    assert "Connection refused" in done.stderr
    assert "`ssh -p 1 nobody@127.0.0.1 true`" in done.stderr


def test_a_target_that_does_not_know_the_key(bundle: Path, server: SshServer) -> None:
    other = server.config.with_name("other_config")
    other.write_text(server.config.read_text().replace("user_key", "host_key"))
    words = ["--remote", server.destination, "--ssh-config", str(other)]
    done = call_kdedge("bench", str(bundle), *words)
    assert done.returncode == 4
    assert "Permission denied" in done.stderr


@pytest.mark.parametrize("option", ["--remote-python", "--remote-venv"])
def test_a_target_without_python(bundle: Path, server: SshServer, option: str) -> None:
    done = bench(bundle, server, option, "~/no $(touch HACKED) python")
    assert done.returncode == 4
    assert "cannot run this Python" in done.stderr
    assert "--remote-python" in done.stderr
    assert copied(server) == []


def test_a_python_that_is_too_old(bundle: Path, server: SshServer) -> None:
    old = python_that_first_runs(server, "import sys; sys.version_info = (3, 9, 2, 'final', 0)")
    done = bench(bundle, server, "--remote-python", old)
    assert done.returncode == 4
    assert "kdedge needs 3.11 or newer" in done.stderr
    assert copied(server) == []


def test_a_full_disk(bundle: Path, server: SshServer) -> None:
    code = """
import tarfile
def full(*arguments, **settings): raise OSError(28, 'No space left on device')
tarfile.TarFile.extractall = full"""
    done = bench(bundle, server, "--remote-python", python_that_first_runs(server, code))
    assert done.returncode == 4
    assert "disk is full" in done.stderr
    assert copied(server) == []


def test_an_environment_without_kdedge(bundle: Path, server: SshServer, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    done = bench(bundle, server, "--remote-venv", tmp_path / "venv")
    assert done.returncode == 4
    assert "has no kdedge" in done.stderr
    assert copied(server) == []


@pytest.mark.slow
def test_an_installation_that_fails(bundle: Path, server: SshServer, tmp_path: Path) -> None:
    """The wheels lack what kdedge needs; a full disk during the installation is recognised."""
    (tmp_path / "wheels").mkdir()
    write_wheel(tmp_path / "wheels")
    words = ["--remote-python", sys.executable, "--wheels", tmp_path / "wheels"]
    done = bench(bundle, server, *words)
    assert done.returncode == 4
    assert "cannot be installed on the target" in done.stderr
    assert "No matching distribution" in done.stderr
    assert copied(server) == []
    assert _reason("install", "OSError: [Errno 28] No space left on device") == "disk"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_bench_leaves_nothing_there(
    bundle: Path, server: SshServer, number: signal.Signals
) -> None:
    """The bench on the target would wait for an hour."""
    # A shell starts background jobs with SIGINT ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    code = """
import os, subprocess, sys
real = subprocess.Popen
def wait(command, **settings):
    process = real([sys.executable, '-c', 'import time; time.sleep(3600)'], **settings)
    print(process.pid, file=sys.stderr, flush=True)
    return process
subprocess.Popen = wait"""
    words = remote_words(bundle, server, "--remote-python", python_that_first_runs(server, code))
    process = subprocess.Popen(
        kdedge_command(*words), cwd=bundle.parent, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    child = next(int(line) for line in process.stderr if line.strip().isdigit())
    assert len(copied(server)) == 1
    process.send_signal(number)
    rest = process.stderr.read()
    code_of = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}
    assert process.wait(WAITING) == code_of[number], rest
    deadline = time.monotonic() + WAITING
    while copied(server) and time.monotonic() < deadline:
        os.sched_yield()
    assert copied(server) == []
    while _runs(child) and time.monotonic() < deadline:
        os.sched_yield()
    assert not _runs(child)


def _runs(process: int) -> bool:
    """Return whether a process runs; one that has ended may wait for its parent."""
    try:
        return "State:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False


# What is checked before anything is copied


@pytest.mark.parametrize(
    "text",
    ["", "-oProxyCommand=x", "a b", "user@", "@host", "host:0", "host:99999", "host;ls", "$(x)@h"],
)
def test_a_target_is_only_a_name(text: str) -> None:
    with pytest.raises(UsageError, match="user@host"):
        parse_target(text)


def test_user_host_and_port_are_read() -> None:
    assert parse_target("pi@board.local:2222").options()[-2:] == ["-p", "2222"]
    assert parse_target("pi@board.local").destination == "pi@board.local"
    assert parse_target("[fe80::1%eth0]:22").destination == "fe80::1%eth0"
    assert parse_target("board", venv="~/kdedge/").interpreter == "kdedge/bin/python"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--remote-venv", "venv"], "--remote is missing"),
        (["--remote", "h", "--remote-venv", "v", "--wheels", "."], "--wheels would be ignored"),
        (["--remote", "h", "--wheels", "."], "there are no wheels"),
        (["--remote", "h", "--out", "bilstm/out"], "cannot be written into a bundle"),
        (["--remote", "h", "--data", "bad.csv"], "label"),
    ],
)
def test_wrong_options_are_reported_first(bundle: Path, words: list[str], message: str) -> None:
    (bundle.parent / "bad.csv").write_text("text,label\na text,no such label\n")
    done = call_kdedge("bench", "bilstm", *words, folder=bundle.parent)
    assert done.returncode in (2, 3)
    assert message in done.stderr


def test_the_wheel_holds_this_kdedge(tmp_path: Path) -> None:
    with zipfile.ZipFile(write_wheel(tmp_path)) as archive:
        names = set(archive.namelist())
        info = next(name for name in names if name.endswith(".dist-info/RECORD"))
        lines = archive.read(info).decode().splitlines()
        metadata = archive.read(info.replace("RECORD", "METADATA")).decode()
        on_target = archive.read("kdedge/benchmarks/remote/on_target.py")
    root = Path(__file__).resolve().parents[2]
    assert on_target == (root / "benchmarks" / "remote" / "on_target.py").read_bytes()
    assert {line.split(",")[0] for line in lines} == names
    assert all(name.startswith("kdedge") for name in names)
    assert {"kdedge/cli/main.py", "kdedge/export/export.py", "kdedge/py.typed"} <= names
    assert not [name for name in names if "/studies/" in name or "__pycache__" in name]
    assert "Requires-Dist: onnxruntime" in metadata
    digest = base64.urlsafe_b64encode(hashlib.sha256(on_target).digest()).rstrip(b"=").decode()
    row = f"kdedge/benchmarks/remote/on_target.py,sha256={digest},{len(on_target)}"
    assert row in lines
