"""The studies under benchmarks/studies still fit the house: they are run by hand, so that nothing else would notice."""

from __future__ import annotations

import importlib
import tomllib
from pathlib import Path

import pytest

from kdedge.recipe import load_recipe

STUDIES = Path(__file__).resolve().parent.parent / "benchmarks" / "studies"


@pytest.mark.parametrize("name", sorted(path.stem for path in STUDIES.glob("*.py")))
def test_a_study_finds_all_that_it_imports_and_says_how_it_is_run(name: str) -> None:
    module = importlib.import_module(name)
    assert callable(module.study)
    assert f"benchmarks/studies/{name}.py" in (module.__doc__ or "")


@pytest.mark.parametrize("path", sorted((STUDIES / "recipes").glob("*.toml")), ids=lambda path: path.stem)
def test_a_recipe_of_the_studies_is_whole(path: Path) -> None:
    recipe = load_recipe(path, ())
    assert recipe.name in (path.stem, f"{path.stem}-augmented")
    assert "report" in tomllib.loads(path.read_text())["data"]
