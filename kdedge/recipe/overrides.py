"""Set keys in the document of a recipe, such as `student.layers=6`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from kdedge.errors import UsageError


def set_keys(document: dict[str, Any], values: Mapping[str, Any]) -> None:
    """Set keys such as `student.layers` in the document of a recipe; None removes a key."""
    for key, value in values.items():
        _set_key(document, key.split("."), value, key)


def apply_override(document: dict[str, Any], override: str) -> None:
    """Apply an override such as `student.layers=6`; an empty value removes the key."""
    key, equals, text = override.partition("=")
    words = key.strip().split(".")
    if not equals or not all(words):
        raise UsageError(
            "an override has the form a.b=value",
            repr(override),
            "for example --set student.layers=6",
        )
    _set_key(document, words, _toml_value(text.strip()), override)


def _toml_value(text: str) -> Any:
    """Parse `6`, `0.1`, `true`, `[1, 2]` as TOML; other text is a string, "" is None."""
    if not text:
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return text


def _set_key(document: dict[str, Any], words: list[str], value: Any, override: str) -> None:
    """Set the key with this dotted path (`words`), or remove it if the value is None.

    If the recipe has several students, the second word is the name of one of them.
    """
    table = document
    for depth, word in enumerate(words[:-1], 1):
        if value is None and word not in table:
            return
        table = table.setdefault(word, {})
        if depth == 1 and isinstance(table, list):
            rest = words[1:]
            table, is_named = _named_table(word, table, rest[0], override)
            _set_key(table, rest[1:] if is_named and len(rest) > 1 else rest, value, override)
            return
        if not isinstance(table, dict):
            raise UsageError(
                f"{'.'.join(words[:depth])} is a value, not a table",
                repr(override),
                "name a key of a table",
            )
    if value is None:
        table.pop(words[-1], None)
    else:
        table[words[-1]] = value


def _named_table(
    key: str, tables: list[Any], word: str, override: str
) -> tuple[dict[str, Any], bool]:
    """Return the student's table, and whether `word` is its name.

    If there is only one student, `word` may also be one of its keys.
    """
    named = {
        name_of(table, number): table
        for number, table in enumerate(tables, 1)
        if isinstance(table, dict)
    }
    if word in named:
        return named[word], True
    if len(tables) == 1 and isinstance(tables[0], dict):
        return tables[0], False
    near = get_close_matches(word, named, n=1)
    if near:
        hint = "did you mean " + override.replace(f"{key}.{word}", f"{key}.{near[0]}", 1) + "?"
        raise UsageError(f"this recipe has no {key} {word}", repr(override), hint)
    raise UsageError(
        f"this recipe has several {key}s",
        repr(override),
        "name one: " + " or ".join(_with_name(override, key, name) for name in named),
    )


def _with_name(override: str, key: str, name: str) -> str:
    """Return the override for one of several tables, such as `student.bilstm.fit.epochs=5`."""
    return override.replace(f"{key}.", f"{key}.{name}.", 1)


def name_of(table: dict[str, Any], number: int) -> str:
    """Return the name of student `number` (counted from 1) in overrides."""
    return str(table.get("name") or table.get("kind") or number)
