"""The distribution is kdedge-toolkit: the name kdedge on PyPI belongs to another project."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WRONG = re.compile(
    r"""(?x)
    \bpip \s+ install (?: \s+ -[-\w=./]+ )* \s+ ["']? kdedge (?! [-\w./] )  # pip install kdedge
    | (?<! [-\w/.] ) kdedge \[ (?: train | tune | gpu | quickstart | dev )  # kdedge[train] alone
    """
)


def tracked_text_files() -> list[Path]:
    """List the tracked files, without this one."""
    done = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in done.stdout.split("\0") if name]
    return [path for path in paths if path.is_file() and path != Path(__file__).resolve()]


def test_no_file_installs_the_other_project() -> None:
    lines = []
    for path in tracked_text_files():
        text = path.read_text(encoding="utf-8", errors="replace")
        for number, line in enumerate(text.splitlines(), 1):
            if WRONG.search(line):
                lines.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert not lines, "\n".join(lines)


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("pip install kdedge", True),
        ('pip install "kdedge[train]"', True),
        ("pip install --upgrade kdedge", True),
        ("never install kdedge[gpu]", True),
        ("pip install kdedge-toolkit", False),
        ('pip install "kdedge-toolkit[train,tune]"', False),
        ("pip install ./kdedge", False),
        ("pip install kdedge-toolkit, then run kdedge predict", False),
    ],
)
def test_old_lines_are_recognised(line: str, wrong: bool) -> None:
    assert bool(WRONG.search(line)) == wrong


def test_project_is_named_kdedge_toolkit() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["name"] == "kdedge-toolkit"
    assert list(project["scripts"]) == ["kdedge"]
