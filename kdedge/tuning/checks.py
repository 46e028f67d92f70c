"""Check that a recipe can be tuned, before anything heavy is imported."""

from __future__ import annotations

from typing import Any

from kdedge.errors import UsageError
from kdedge.recipe import RangeConfig, Recipe, with_values
from kdedge.recipe.checks import reject_auto_size
from kdedge.recipe.general import KEYS_OF_THE_TASK
from kdedge.recipe.section import Section

HINTS_OF_UNREAD = {
    "quantize": "kdedge export reads it: export and bench the student once for each value",
    "baseline": "kdedge distill reads it",
}
"""Keys and tables of a student that no trial reads -> what to do instead of tuning them."""

LAYER_WEIGHTS = (
    "objective.hidden_weight",
    "objective.attention_weight",
    "objective.embedding_weight",
)

LOSS_WEIGHTS = {
    "objective.logits": ("objective.logits_weight",),
    "objective.temperature": ("objective.logits_weight",),
    "objective.hidden": ("objective.hidden_weight",),
    "objective.attention": ("objective.attention_weight",),
    "objective.relation_heads": ("objective.attention_weight",),
    "objective.layer_map": LAYER_WEIGHTS,
}
"""Keys of a loss -> the weights of the terms that it decides."""

LOSS_READERS = {
    "objective.temperature": ("objective.logits", ("kl",)),
    "objective.relation_heads": (
        "objective.attention",
        ("value_relation", "qk_relation", "minilm"),
    ),
}
"""Keys of a loss -> the key that names the loss, and the losses that read the first key."""


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
        for value in _ends_or_choices(space):
            _check_value(recipe, key, value)
    for key in recipe.tune.ranges:
        _check_is_read(recipe, key)


def _check_is_read(recipe: Recipe, key: str) -> None:
    """Raise UsageError if trials with different values of a key would be alike."""
    own_key = strip_prefix(recipe, key)
    table = own_key.partition(".")[0]
    if table in HINTS_OF_UNREAD:
        raise UsageError(
            "no trial depends on this key",
            f"{key}: a trial trains the student, without baseline and without int8",
            f"remove it from tune.ranges; {HINTS_OF_UNREAD[table]}",
        )
    weights = LOSS_WEIGHTS.get(own_key, ())
    if weights and not any(_may_be_positive(recipe, weight) for weight in weights):
        raise UsageError(
            "no trial depends on this key, because its loss has the weight 0",
            f"{key}: {' and '.join(weights)} = 0",
            f"set {weights[0]} of the student above 0, or remove the key from tune.ranges",
        )
    loss, readers = LOSS_READERS.get(own_key, ("", ()))
    if loss and not set(readers).intersection(_values(recipe, loss)):
        raise UsageError(
            "no trial depends on this key, because its loss does not read it",
            f"{key}: {loss} = {', '.join(map(str, _values(recipe, loss)))}",
            f"set {loss} to {' or '.join(readers)}, or remove the key from tune.ranges",
        )


def _may_be_positive(recipe: Recipe, weight: str) -> bool:
    return any(float(value) > 0 for value in _values(recipe, weight))


def _values(recipe: Recipe, own_key: str) -> list[Any]:
    """Return the values that trials may have for a key of the student, or the ends of its range."""
    assert recipe.tune is not None
    for key, space in recipe.tune.ranges.items():
        if strip_prefix(recipe, key) == own_key:
            return _ends_or_choices(space)
    value: Any = recipe.student[0]
    for attribute in own_key.split("."):
        value = getattr(value, attribute)
    return [value]


def _ends_or_choices(space: RangeConfig | list[Any]) -> list[Any]:
    return [space.low, space.high] if isinstance(space, RangeConfig) else space


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
