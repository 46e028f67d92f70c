"""The recipes in configs/."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

from kdedge.recipe import Recipe, load_recipe

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SHARED = {"task", "data", "augment", "teacher", "transfer", "seed"}


def test_recipes_that_share_a_run_agree() -> None:
    recipes = [load_recipe(path) for path in sorted(CONFIGS.glob("*.toml"))]
    compared = 0
    for first, second in combinations(recipes, 2):
        if _run_of(first) == _run_of(second):
            compared += 1
            assert first.model_dump(include=SHARED) == second.model_dump(include=SHARED)
    assert compared


def _run_of(recipe: Recipe) -> str:
    """Return the name of the run that holds a recipe's teacher and texts."""
    return recipe.share or recipe.name
