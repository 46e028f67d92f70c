"""The reference of a recipe's keys, taken from its models: name, type, default, description."""

from __future__ import annotations

import difflib
import json
import types
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from kdedge.errors import UsageError
from kdedge.recipe.faults import sections_of
from kdedge.recipe.recipe import Recipe
from kdedge.recipe.section import Section
from kdedge.recipe.students import STUDENT_KINDS

TYPE_NAMES = {
    int: "whole number",
    float: "number",
    str: "text",
    bool: "true or false",
    type(None): "nothing",
}
CONTAINERS = {list: "list", tuple: "list", dict: "table"}
BOUNDS = {Gt: ("gt", "above"), Ge: ("ge", "from"), Lt: ("lt", "below"), Le: ("le", "up to")}


TABLE = "table"
"""The type of a key that holds other keys."""


@dataclass(frozen=True)
class Key:
    """One key of a recipe.

    Attributes:
        name: Full name as for --set, such as `student.fit.epochs`.
        type: Its type in words.
        default: Its default as TOML; None if the key is needed or has no value by default.
        required: Whether a recipe must have it.
        description: What it means.
        kinds: Kinds of students that have it; empty if it is not a key of a student, or if all
            kinds have it.
    """

    name: str
    type: str
    default: str | None
    required: bool
    description: str
    kinds: tuple[str, ...] = ()


def recipe_keys(prefix: str = "") -> list[Key]:
    """List the keys of a recipe in the order in which they are defined.

    Args:
        prefix: A key or a table, such as `student.fit`; all keys by default.

    Raises:
        UsageError: If there is no such key or table; names the nearest.

    Example:
        >>> recipe_keys("data.train")[0].default
        '"train"'
    """
    return [key for key in recipe_entries(prefix) if key.type != TABLE]


def recipe_entries(prefix: str = "") -> list[Key]:
    """List the tables and the keys of a recipe; see `recipe_keys`."""
    entries = _all_keys()
    chosen = [key for key in entries if f"{key.name}.".startswith(f"{prefix}.")]
    if prefix and not chosen:
        names = [key.name for key in entries]
        near = difflib.get_close_matches(prefix, names, n=1, cutoff=0.4)
        raise UsageError(
            "a recipe has no such key",
            repr(prefix),
            f"did you mean {near[0]}?" if near else "run `kdedge keys` for all keys",
        )
    return chosen if prefix else entries


def recipe_tables() -> list[Key]:
    """List the tables of a recipe, such as `student.fit`; KEY stands for any name."""
    return [key for key in _all_keys() if key.type == TABLE]


def _all_keys() -> list[Key]:
    return _merged(list(_keys_of(Recipe, "")))


def _keys_of(section: type[Section], prefix: str, kind: str = "") -> Iterator[Key]:
    for name, field in section.model_fields.items():
        path = f"{prefix}{name}"
        key = _key(path, field, kind)
        students = _students(field.annotation)
        inner = _section(field.annotation)
        if students:
            yield replace(key, type=TABLE, default=None)
            for student in students:
                yield from _keys_of(student, f"{path}.", student.model_fields["kind"].default)
        elif inner is not None:
            yield replace(key, type=TABLE, default=None)
            yield from _keys_of(inner, f"{path}.", kind)
        else:
            yield key
            yield from _keys_of_values(path, field.annotation, kind)


def _keys_of_values(path: str, annotation: Any, kind: str) -> Iterator[Key]:
    """Yield the keys of a dictionary of tables; `KEY` stands for the names in it."""
    if get_origin(annotation) is dict:
        for inner in sections_of(annotation):
            yield Key(f"{path}.KEY", TABLE, None, False, _first_line(inner), ())
            yield from _keys_of(inner, f"{path}.KEY.", kind)


def _first_line(section: type[Section]) -> str:
    return (section.__doc__ or "").partition("\n")[0]


def _students(annotation: Any) -> list[type[Section]]:
    """Return the student sections in a type annotation; [] if it has none."""
    return [section for section in sections_of(annotation) if section in STUDENT_KINDS.values()]


def _section(annotation: Any) -> type[Section] | None:
    """Return the section of a key that always is a table; None for any other key."""
    parts = [part for part in _parts(annotation) if part is not type(None)]
    if len(parts) != 1:
        return None
    part = parts[0]
    if get_origin(part) is list:
        return _section(get_args(part)[0])
    return part if isinstance(part, type) and issubclass(part, Section) else None


def _parts(annotation: Any) -> list[Any]:
    """Return the members of a union type, or the type itself in a list."""
    if get_origin(annotation) is Annotated:
        return _parts(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return list(get_args(annotation))
    return [annotation]


def _key(name: str, field: FieldInfo, kind: str) -> Key:
    default = field.get_default(call_default_factory=False)
    is_required = default is PydanticUndefined
    text = None
    if not is_required and default is not None and not isinstance(default, Section):
        text = json.dumps(default)  # the same as TOML for texts, numbers, booleans and lists
    return Key(
        name,
        _type_name(field.annotation, field.metadata),
        text,
        is_required,
        field.description or "",
        (kind,) if kind else (),
    )


def _type_name(annotation: Any, metadata: list[Any] | tuple[Any, ...] = ()) -> str:
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        return _type_name(inner, _flat(more))
    parts = [part for part in _parts(annotation) if part is not type(None)]
    if len(parts) > 1:
        return " or ".join(_type_name(part) for part in parts)
    return _simple_type_name(parts[0]) + _bounds(metadata)


def _flat(metadata: list[Any]) -> list[Any]:
    """Return all constraints; those inside `Field(...)` are unpacked."""
    flat: list[Any] = []
    for item in metadata:
        flat += item.metadata if isinstance(item, FieldInfo) else [item]
    return flat


def _simple_type_name(part: Any) -> str:
    origin, arguments = get_origin(part), get_args(part)
    if origin is Annotated:
        return _type_name(part)
    if origin is Literal:
        return " or ".join(json.dumps(value) for value in arguments)
    if origin in CONTAINERS:
        inner = _type_name(arguments[-1])
        return f"{CONTAINERS[origin]} of " + (f"({inner})" if " or " in inner else inner)
    if isinstance(part, type) and issubclass(part, Section):
        return "{ " + ", ".join(part.model_fields) + " }"
    return TYPE_NAMES.get(part, str(part))


def _bounds(metadata: list[Any] | tuple[Any, ...]) -> str:
    words = []
    for constraint in metadata:
        if hasattr(constraint, "pattern"):
            words.append("of letters, digits, . _ and -")
        for bound, (attribute, word) in BOUNDS.items():
            if isinstance(constraint, bound):
                words.append(f"{word} {getattr(constraint, attribute):.10g}")
    return f" {', '.join(words)}" if words else ""


def _merged(keys: list[Key]) -> list[Key]:
    """Merge equal keys of several kinds of students into one."""
    merged: dict[Key, tuple[str, ...]] = {}
    for key in keys:
        shared = replace(key, kinds=())
        merged[shared] = merged.get(shared, ()) + key.kinds
    joined = []
    for key, kinds in merged.items():
        joined.append(replace(key, kinds=() if len(kinds) == len(STUDENT_KINDS) else kinds))
    return joined
