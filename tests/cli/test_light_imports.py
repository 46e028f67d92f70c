"""Nothing heavy is imported before options, the recipe and the data are checked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from kdedge_process import ROOT

from kdedge.cli.main import COMMANDS

pytestmark = pytest.mark.slow  # Every test starts processes.

HEAVY = ("torch", "transformers", "datasets", "scipy", "sklearn", "optuna", "onnx", "pyarrow")

PROGRAM = """
import atexit, json, sys
sys.path.insert(0, "tests")
import conftest
heavy = [name for name in {heavy!r} if name in sys.modules]
assert not heavy, heavy
atexit.register(
    lambda: print(json.dumps([name for name in {heavy!r} if name in sys.modules]))
)
sys.argv = ["kdedge", *{arguments!r}]
from kdedge.cli.main import main
main()
"""

HELP_PROGRAM = """
import json, sys
sys.path.insert(0, "tests")
import conftest
from kdedge.cli.main import cli
found = {{}}
for name in {names!r}:
    cli.main([name, "--help"], standalone_mode=False)
    found[name] = [package for package in {heavy!r} if package in sys.modules]
print(json.dumps(found))
"""

RECIPE = """
name = "r"
teacher.model = "nowhere"
student.kind = "bilstm"
data.train = "{data}"
data.test = 0.2
tune.ranges."student.fit.epochs" = [1.0, 2.0]
augment.rules.mask = 0.1
"""


def run_and_list_heavy_imports(*arguments: str) -> tuple[subprocess.CompletedProcess[str], list]:
    """Run a command; return the process, and the heavy packages that it imported."""
    program = PROGRAM.format(heavy=HEAVY, arguments=arguments)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    return done, json.loads(done.stdout.splitlines()[-1])


def write_recipe(folder: Path, csv: str) -> str:
    data = folder / "texts.csv"
    data.write_text(csv, encoding="utf-8")
    recipe = folder / "recipe.toml"
    recipe.write_text(RECIPE.format(data=data), encoding="utf-8")
    return str(recipe)


def test_the_help_of_every_command_imports_nothing_heavy() -> None:
    """All in one process: if one imports something heavy, so does the rest of the list."""
    done = subprocess.run(
        [sys.executable, "-c", HELP_PROGRAM.format(heavy=HEAVY, names=tuple(COMMANDS))],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    heavy = json.loads(done.stdout.splitlines()[-1])
    assert heavy == {name: [] for name in COMMANDS}


@pytest.mark.parametrize("name", ["run", "distill", "augment", "tune"])
def test_a_misspelled_key_is_reported_before_heavy_imports(name: str, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, "text,label\na,x\n")
    done, heavy = run_and_list_heavy_imports(name, recipe, "--set", "student.hiden=2")
    assert done.returncode == 2 and "did you mean" in done.stderr and heavy == [], done.stderr


@pytest.mark.parametrize("name", ["run", "distill", "augment", "tune"])
def test_a_broken_csv_is_reported_before_heavy_imports(name: str, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, "text,label\na,x\nb,y,z\n")
    done, heavy = run_and_list_heavy_imports(name, recipe, "--runs", str(tmp_path / "runs"))
    assert done.returncode == 3 and "texts.csv:3" in done.stderr and heavy == [], done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_recipe_without_ranges_is_reported_before_heavy_imports(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, "text,label\na,x\n")
    done, heavy = run_and_list_heavy_imports("tune", recipe, "--set", "tune=")
    assert done.returncode == 2 and "nothing to tune" in done.stderr and heavy == [], done.stderr


def test_a_run_that_does_not_exist_is_reported_before_heavy_imports(tmp_path: Path) -> None:
    for name in ("export", "bench"):
        done, heavy = run_and_list_heavy_imports(name, str(tmp_path))
        assert done.returncode == 2 and heavy == [], done.stderr
