"""The steps of examples/serve/Dockerfile, in folders instead of images: no daemon is needed."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import factories
import pytest
from kit_tools import missing

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "examples" / "serve" / "Dockerfile"

Step = tuple[str, str]
"""An instruction and its arguments."""


def stages() -> list[list[Step]]:
    """Return the instructions of each stage, without FROM."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found: list[list[Step]] = []
    for line in text.replace("\\\n", " ").splitlines():
        name, _, rest = line.strip().partition(" ")
        if name == "FROM":
            found.append([])
        elif name:
            found[-1].append((name, rest.strip()))
    return found


def copy(arguments: str, folder: Path) -> None:
    """Do what COPY does with files and folders of the checkout."""
    *sources, target = shlex.split(arguments)
    for name in sources:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, folder / target, ignore=ignored)
        else:
            shutil.copyfile(source, folder / target / source.name)


def run_in(folder: Path, command: str) -> None:
    """Run a command of the build stage, with this Python as `python`."""
    names = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    path = f"{Path(sys.executable).parent}:{names['PATH']}"
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=folder,
        env=names | {"PATH": path},
        capture_output=True,
        text=True,
    )
    if "No matching distribution" in done.stderr:
        missing("the package registry is not reachable")
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_the_steps_make_a_server(tmp_path: Path) -> None:
    build, final = stages()
    source, app = tmp_path / "source", tmp_path / "app"
    source.mkdir()
    for name, arguments in build:
        if name == "COPY":
            copy(arguments, source)
        elif name == "RUN":
            run_in(source, arguments.replace("/app", str(app)))
    steps = dict(final)
    bundle = shutil.copytree(factories.tiny_bundle(), tmp_path / "bundle")
    # The package must not come from the checkout, and nothing is written next to the code.
    shutil.rmtree(source)
    command = [word.replace("/app", str(app)) for word in json.loads(steps["CMD"])]
    command[command.index("/bundle")] = str(bundle)
    command[command.index("8000")] = "0"
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            line = process.stderr.readline()
            assert "listening on http://0.0.0.0:" in line, line + process.stderr.read()
            address = f"http://127.0.0.1:{line.rsplit(':', 1)[1].strip()}"
            with urllib.request.urlopen(f"{address}/docs", timeout=10) as page:
                assert b"POST /predict" in page.read()
            check = json.loads(steps["HEALTHCHECK"].removeprefix("CMD "))
            check = [word.replace("http://127.0.0.1:8000", address) for word in check]
            check[0] = check[0].replace("/app", str(app))
            assert subprocess.run(check, timeout=30).returncode == 0
        finally:
            process.terminate()
        assert process.wait(20) == 0


def test_the_server_has_a_number_as_its_user() -> None:
    """Kubernetes accepts `runAsNonRoot` only for a user with a number."""
    steps = dict(stages()[-1])
    assert int(steps["USER"]) > 0
    assert f"--uid {steps['USER']}" in steps["RUN"]
