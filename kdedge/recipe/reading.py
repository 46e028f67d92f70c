"""Read a recipe: unknown keys are errors, and all faults are listed at once."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kdedge.errors import UsageError
from kdedge.recipe.faults import faults_error
from kdedge.recipe.overrides import apply_override, set_keys
from kdedge.recipe.recipe import Recipe


def load_recipe(path: str | Path, overrides: tuple[str, ...] | Mapping[str, Any] = ()) -> Recipe:
    """Read a recipe from TOML and apply overrides.

    Args:
        path: The TOML file.
        overrides: Texts such as `student.layers=6`, or key -> value such as
            `{"student.layers": 6}`; an empty text or None removes a key.

    Raises UsageError that lists every fault, with the nearest known key.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        document = tomllib.loads(text)
    except OSError as error:
        raise UsageError(
            "the recipe cannot be read",
            f"{path}: {error.strerror}",
            "name a TOML file, such as one in configs/",
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(
            "the recipe is not TOML", f"{path}: {error}", "see configs/quickstart.toml for the form"
        ) from error
    if isinstance(overrides, Mapping):
        set_keys(document, overrides)
    else:
        for override in overrides:
            apply_override(document, override)
    return validated(str(path), document, text)


def with_values(recipe: Recipe, values: dict[str, Any]) -> Recipe:
    """Return the recipe with other values for some keys, which are written as in overrides.

    Raises UsageError as `load_recipe` does.
    """
    document = recipe.model_dump(mode="json")
    set_keys(document, values)
    return validated(recipe.name, document)


def validated(origin: str, document: dict[str, Any], text: str = "") -> Recipe:
    """Return the recipe of a document; `text` is the file that it comes from.

    Raises UsageError as `load_recipe` does.
    """
    try:
        return Recipe.model_validate(document)
    except ValidationError as error:
        raise faults_error(origin, error, document, Recipe, text) from error
