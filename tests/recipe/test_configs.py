"""The recipes in configs/."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdedge.recipe import Recipe, load_recipe

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SHARED = {"task", "data", "augment", "teacher", "transfer", "seed"}


def _recipes() -> list[Recipe]:
    return [load_recipe(path) for path in sorted(CONFIGS.glob("*.toml"))]


@pytest.mark.parametrize("recipe", _recipes(), ids=lambda recipe: recipe.name)
def test_a_recipe_agrees_with_the_run_that_it_shares(recipe: Recipe) -> None:
    named = {other.name: other for other in _recipes()}
    assert recipe.name in named
    if recipe.share:
        expected = named[recipe.share].model_dump(include=SHARED)
        assert recipe.model_dump(include=SHARED) == expected


def test_some_recipe_shares_a_run() -> None:
    assert any(recipe.share for recipe in _recipes())
