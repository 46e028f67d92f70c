"""Check that a recipe can be tuned, before anything heavy is imported."""

from __future__ import annotations

from typing import Any

from kdedge.errors import UsageError
from kdedge.recipe import RangeConfig, Recipe, with_values
from kdedge.recipe.checks import reject_auto_size
from kdedge.recipe.general import KEYS_OF_THE_TASK
from kdedge.recipe.section import Section


def check_recipe(recipe: Recipe) -> None:
    """Check that the recipe has one student and that the search spaces fit it.

    Raises:
        UsageError: If something does not fit, or if there is nothing to tune.
    """
    if recipe.tune is None:
        raise UsageError(
            "the recipe has nothing to tune",
            f"{recipe.name} has no [tune] table",
            'add [tune.ranges] with lines such as "student.fit.learning_rate" = '
            "{ low = 1e-4, high = 1e-2, log = true }",
        )
    if len(recipe.student) > 1:
        raise UsageError(
            "only one student can be tuned at a time",
            f"{recipe.name} has {len(recipe.student)}",
            "keep one [[student]] in this recipe",
        )
    reject_auto_size(recipe)
    for key, space in recipe.tune.ranges.items():
        if strip_prefix(recipe, key) in ("kind", "name"):
            raise UsageError(
                "this key of a student cannot be tuned",
                key,
                "write one recipe for each kind of student, and tune them one by one",
            )
        if _decides_general_student(recipe, key):
            raise UsageError(
                "this key decides the general student, which all trials share",
                key,
                "write one recipe for each value, or remove the table student.general",
            )
        _check_tables(recipe, key)
        values = [space.low, space.high] if isinstance(space, RangeConfig) else space
        for value in values:
            _check_value(recipe, key, value)


def _decides_general_student(recipe: Recipe, key: str) -> bool:
    if recipe.student[0].general_stage is None or not key.startswith("student."):
        return False
    return strip_prefix(recipe, key).partition(".")[0] not in KEYS_OF_THE_TASK


def _check_tables(recipe: Recipe, key: str) -> None:
    """Raise UsageError if a table on the way to a key is unknown, or not in the recipe."""
    table: Any = recipe.student[0]
    *tables, _ = strip_prefix(recipe, key).split(".")
    for name in tables:
        known = isinstance(table, Section) and name in type(table).model_fields
        table = getattr(table, name) if known else None
        if not isinstance(table, Section):
            raise UsageError(
                "this key to tune is in no table of the recipe's student",
                f"{key}: there is no table {name}",
                "correct the key (kdedge keys lists them), or add the table to the recipe",
            )


def _check_value(recipe: Recipe, key: str, value: Any) -> None:
    """Check that the key exists and may have this value; faults of other keys are ignored."""
    try:
        with_values(recipe, {key: value})
    except UsageError as error:
        # A trial may set other values for the other keys, without these faults.
        if f"{strip_prefix(recipe, key)}:" in str(error).replace("student.0.", ""):
            raise


def strip_prefix(recipe: Recipe, key: str) -> str:
    """Return `fit.epochs` for the keys `student.fit.epochs` and `student.NAME.fit.epochs`."""
    name = recipe.student[0].key
    return key.removeprefix("student.").removeprefix(f"{name}.")
