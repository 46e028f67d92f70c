"""Write the reference of recipe keys from the pydantic models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from kdedge.recipe import STUDENT_KINDS, Recipe

Schema = dict[str, Any]

HEADER = """# Recipe keys

A recipe is one TOML file. This page lists every key with its values and its default.
`kdedge keys student.fit` prints the same list in the terminal. A key that does not exist is an
error that names the nearest key.

Every key can be overridden on the command line:
`kdedge distill RECIPE --set student.fit.epochs=5`. An empty value removes a key:
`--set data.config=`. With several students or teachers, add the name:
`--set student.bilstm.hidden=100`.

A table that may stand several times is written with double brackets: `[[student]]`, `[[teacher]]`.
"""

TYPE_WORDS = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "`true` or `false`",
    "null": "",
}


@dataclass
class Table:
    """One table of the recipe, and the model of each student kind that it belongs to.

    Attributes:
        path: Its name, such as `student.fit`; "" for the keys at the top.
        summary: The first line of its documentation.
        variants: Student kind -> JSON schema; the kind is "" for all other tables.
    """

    path: str
    summary: str
    variants: dict[str, Schema] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """One key as the page shows it."""

    name: str
    values: str
    default: str
    description: str


def recipe_reference() -> str:
    """Write the page as Markdown."""
    schema = Recipe.model_json_schema()
    parts = [HEADER]
    for table in recipe_tables(schema).values():
        parts.append(_section(table, schema["$defs"]))
    return "\n".join(parts)


def recipe_keys() -> set[str]:
    """Return the full name of every table and key, such as `student.fit.epochs`."""
    keys = set()
    for table in recipe_tables(Recipe.model_json_schema()).values():
        keys.add(table.path)
        for variant in table.variants.values():
            for name in variant["properties"]:
                keys.add(f"{table.path}.{name}".lstrip("."))
    return keys - {""}


def recipe_tables(schema: Schema) -> dict[str, Table]:
    """Return every table by its path, in the order of the recipe."""
    tables: dict[str, Table] = {}
    _collect("", "", schema, schema["$defs"], tables)
    return tables


def _collect(
    path: str, kind: str, schema: Schema, definitions: Schema, tables: dict[str, Table]
) -> None:
    """Add a table and the tables inside it."""
    summary = schema.get("description", "").split("\n")[0]
    table = tables.setdefault(path, Table(path, summary))
    table.variants[kind] = schema
    for name, value in schema["properties"].items():
        inner_path = _inner_path(path, name, value)
        for inner_kind, definition in _inner_tables(value, definitions):
            _collect(inner_path, inner_kind or kind, definition, definitions, tables)


def _inner_path(path: str, name: str, value: Schema) -> str:
    """Return the path of the table that a key holds; KEY stands for a name of the user's."""
    free = ".KEY" if "additionalProperties" in value else ""
    return f"{path}.{name}{free}".lstrip(".")


def _inner_tables(value: Schema, definitions: Schema) -> Iterator[tuple[str, Schema]]:
    """Yield (student kind or "", schema) of the tables that a key may hold."""
    if "discriminator" in value:
        mapping = value["discriminator"]["mapping"]
        for kind in STUDENT_KINDS:
            yield kind, _resolve(mapping[kind], definitions)
        return
    if "$ref" in value:
        yield "", _resolve(value["$ref"], definitions)
    for option in value.get("anyOf", []):
        yield from _inner_tables(option, definitions)
    for part in ("items", "additionalProperties"):
        if isinstance(value.get(part), dict):
            yield from _inner_tables(value[part], definitions)


def _resolve(reference: str, definitions: Schema) -> Schema:
    schema: Schema = definitions[reference.rpartition("/")[2]]
    return schema


def _section(table: Table, definitions: Schema) -> str:
    title = f"`[{table.path}]`" if table.path else "Keys at the top"
    lines = [f"## {title}", ""]
    if len(table.variants) == 1 and table.path:
        lines += [_sentence(table.summary), ""]
    for entry in _entries(table, definitions):
        anchor = f"{table.path}.{entry.name}".lstrip(".").replace(".", "-")
        lines.append(f"`{entry.name}` {{: #{anchor} }}")
        lines.append(f":   {entry.values}; {entry.default}<br>")
        lines.append(f"    {_sentence(entry.description)}")
        lines.append("")
    return "\n".join(lines)


def _entries(table: Table, definitions: Schema) -> Iterator[Entry]:
    """Yield the keys of a table; what differs between student kinds names the kind."""
    for name in _key_names(table):
        by_kind = {}
        for kind, schema in table.variants.items():
            if name in schema["properties"]:
                by_kind[kind] = _entry(table.path, name, schema, definitions)
        yield _merged(by_kind, list(table.variants))


def _key_names(table: Table) -> list[str]:
    names: dict[str, None] = {}
    for schema in table.variants.values():
        names |= dict.fromkeys(schema["properties"])
    return list(names)


def _entry(path: str, name: str, schema: Schema, definitions: Schema) -> Entry:
    value = schema["properties"][name]
    inner = list(_inner_tables(value, definitions))
    if inner:
        inner_path = _inner_path(path, name, value)
        anchor = inner_path.replace(".", "").lower()
        values = f"the table [`[{inner_path}]`](#{anchor})"
        free = value.get("additionalProperties", {})
        if any(option.get("type") == "array" for option in free.get("anyOf", [])):
            values += ", or a list of values"
    else:
        values = _values_text(value)
    required = name in schema.get("required", [])
    default = "required" if required else _default_text(value, is_table=bool(inner))
    description = value.get("description", "")
    if inner and not description:  # pydantic leaves out what the table's own docstring says
        description = inner[0][1]["description"].split("\n")[0]
    return Entry(name, values, default, description)


def _merged(by_kind: dict[str, Entry], kinds: list[str]) -> Entry:
    """Join the entries of one key; names the kinds if they differ or if some lack the key."""
    entries = list(by_kind.values())
    first = entries[0]
    values = _join_variants({kind: entry.values for kind, entry in by_kind.items()})
    default = _join_variants({kind: entry.default for kind, entry in by_kind.items()})
    description = _join_sentences({kind: entry.description for kind, entry in by_kind.items()})
    if len(by_kind) < len(kinds):
        description = f"Only for {' and '.join(by_kind)}. {description}"
    return Entry(first.name, values, default, description)


def _join_variants(texts: dict[str, str]) -> str:
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return "; ".join(f"{kind}: {text}" for kind, text in texts.items())


def _join_sentences(texts: dict[str, str]) -> str:
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return " ".join(_sentence(f"For {kind}: {text}") for kind, text in texts.items())


def _default_text(value: Schema, *, is_table: bool) -> str:
    default = value.get("default")
    if default is None:
        return "optional"
    if is_table:
        return "its defaults"
    return f"default `{_toml(default)}`"


def _toml(value: Any) -> str:
    """Write a default as in TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return str(value)


def _values_text(value: Schema) -> str:
    """Describe the values that a JSON schema allows."""
    if "anyOf" in value:
        options = [_values_text(option) for option in value["anyOf"]]
        return " or ".join(option for option in options if option)
    if "const" in value or "enum" in value:
        choices = value.get("enum", [value.get("const")])
        return ", ".join(f"`{_toml(choice)}`" for choice in choices)
    if value.get("type") == "object":
        return "a table"
    if value.get("type") == "array":
        return _array_text(value)
    if "pattern" in value:
        return "a name of letters, digits, `.`, `_` and `-`"
    return TYPE_WORDS[value["type"]] + _limits_text(value)


def _array_text(value: Schema) -> str:
    if "prefixItems" in value:
        items = value["prefixItems"]
        return f"a list of {len(items)}: {_values_text(items[0])}"
    return f"a list of: {_values_text(value['items'])}"


def _limits_text(value: Schema) -> str:
    words = {
        "exclusiveMinimum": "above",
        "minimum": "at least",
        "exclusiveMaximum": "below",
        "maximum": "at most",
    }
    limits = [f"{word} {value[key]}" for key, word in words.items() if key in value]
    return " " + ", ".join(limits) if limits else ""


def _sentence(text: str) -> str:
    """Begin with a capital letter and end with a full stop."""
    text = text.strip()
    if not text:
        return ""
    return text[0].upper() + text[1:] + ("" if text.endswith(".") else ".")
