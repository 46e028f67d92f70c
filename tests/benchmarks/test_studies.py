"""The studies still import and their recipes still load; nothing else runs them."""

from __future__ import annotations

import ast
import importlib
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdedge.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[2]
STUDIES = ROOT / "benchmarks" / "studies"


def stem(path: Path) -> str:
    return path.stem


def imported_modules(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize("path", sorted(STUDIES.glob("[!_]*.py")), ids=stem)
def test_a_study_imports_and_documents_its_command(path: Path) -> None:
    module = importlib.import_module(path.stem)
    assert callable(module.study)
    assert path.relative_to(ROOT).as_posix() in (module.__doc__ or "")


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=stem)
def test_benchmarks_never_import_export(path: Path) -> None:
    """Studies are outside the wheel and may import everything."""
    for name in imported_modules(path):
        assert not f"{name}.".startswith("kdedge.export.")


@pytest.mark.parametrize("path", sorted((STUDIES / "recipes").glob("*.toml")), ids=stem)
def test_a_recipe_of_the_studies_loads(path: Path) -> None:
    recipe = load_recipe(path, ())
    assert recipe.name in (path.stem, f"{path.stem}-augmented")
    assert "test" in tomllib.loads(path.read_text())["data"]
