"""The studies still fit the house: they are run by hand, so that nothing else would notice."""

from __future__ import annotations

import ast
import importlib
import tomllib
from pathlib import Path

import pytest

from kdedge.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[2]
STUDIES = ROOT / "benchmarks" / "studies"


@pytest.mark.parametrize(
    "path",
    sorted(
        path for room in ("benchmarks", "export") for path in (ROOT / room / "studies").glob("*.py")
    ),
    ids=lambda path: path.stem,
)
def test_a_study_finds_all_that_it_imports_and_says_how_it_is_run(path: Path) -> None:
    module = importlib.import_module(path.stem)
    assert callable(module.study)
    assert path.relative_to(ROOT).as_posix() in (module.__doc__ or "")


@pytest.mark.parametrize(
    "path", sorted((ROOT / "benchmarks").rglob("*.py")), ids=lambda path: path.stem
)
def test_what_measures_never_makes_what_it_measures(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        named = (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
        assert not [
            name for name in named if name == "kdedge.export" or name.startswith("kdedge.export.")
        ]


@pytest.mark.parametrize(
    "path", sorted((STUDIES / "recipes").glob("*.toml")), ids=lambda path: path.stem
)
def test_a_recipe_of_the_studies_is_whole(path: Path) -> None:
    recipe = load_recipe(path, ())
    assert recipe.name in (path.stem, f"{path.stem}-augmented")
    assert "test" in tomllib.loads(path.read_text())["data"]
