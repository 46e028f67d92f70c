"""`kdedge bench --remote` on a target without a network: everything is installed from wheels."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import factories
import pytest
from kdedge_process import ROOT, call_kdedge
from ssh_server import running_server

pytestmark = pytest.mark.soak


def test_a_bench_on_a_target_that_has_only_python(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    pip = [tmp_path / "venv" / "bin" / "python", "-m", "pip"]
    lock = ROOT / "configs" / "locks" / "device.txt"
    command = [*pip, "download", "--quiet", "--only-binary=:all:", "--dest", wheels, "-r", lock]
    subprocess.run(command, check=True)
    bundle = shutil.copytree(factories.tiny_bundle("bilstm"), tmp_path / "bilstm")
    with running_server(tmp_path) as server:
        target = ["--remote", server.destination, "--ssh-config", str(server.config)]
        target += ["--remote-python", sys.executable, "--wheels", str(wheels)]
        done = call_kdedge(
            *("bench", str(bundle), *target, "--repeats", "2", "--json"), folder=tmp_path
        )
        assert done.returncode == 0, done.stderr
        assert list(server.home.iterdir()) == []
    document = json.loads(done.stdout.splitlines()[-1])
    assert {row["precision"] for row in document["rows"]} == {"fp32", "int8"}
    (report,) = (tmp_path / "bench").glob("bilstm-127.0.0.1-*/report.json")
    assert json.loads(report.read_text()) == document
