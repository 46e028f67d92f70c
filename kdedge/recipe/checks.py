"""Checks of a recipe that only some commands need."""

from __future__ import annotations

from kdedge.errors import UsageError
from kdedge.recipe.recipe import Recipe


def reject_auto_size(recipe: Recipe) -> None:
    """Raise UsageError if the size is `auto`, which only `kdedge distill` resolves."""
    if recipe.augment and recipe.augment.size == "auto":
        raise UsageError(
            "students are compared on the same texts, so the number of texts must be fixed",
            'augment.size = "auto"',
            "run kdedge distill, which prints the size that auto chooses, and set augment.size",
        )
