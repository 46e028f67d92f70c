"""Write the reference of recipe keys as a page. `make reference` writes it."""

from __future__ import annotations

from kdedge.recipe.reference import Key, recipe_keys, recipe_tables

HEADER = """# Recipe keys

A recipe is one TOML file. This page lists every key with its values and its default.
`kdedge keys student.fit` prints the same list in the terminal. A key that does not exist is an
error that names the nearest key.

Every key can be overridden on the command line:
`kdedge distill RECIPE --set student.fit.epochs=5`. An empty value removes a key:
`--set data.config=`. With several students, add the name:
`--set student.bilstm.hidden=100`.

Several students are written with double brackets: `[[student]]`.
"""


def recipe_reference() -> str:
    """Write the page as Markdown: the keys at the top, then one section for each table."""
    by_table: dict[str, dict[str, list[Key]]] = {"": {}}
    for key in recipe_keys():
        table, _, name = key.name.rpartition(".")
        by_table.setdefault(table, {}).setdefault(name, []).append(key)
    lines = [HEADER, "## Keys at the top", "", *_entries("", by_table[""])]
    for table in recipe_tables():
        lines += [f"## `[{table.name}]`", "", _summary(table), ""]
        lines += _entries(f"{table.name}.", by_table[table.name])
    return "\n".join(lines)


def _summary(table: Key) -> str:
    text = _sentence(table.description)
    if table.kinds:
        text = f"Only for {' and '.join(table.kinds)}. {text}"
    return f"{text} Required." if table.required else text


def _entries(prefix: str, keys: dict[str, list[Key]]) -> list[str]:
    """Write the keys of a table; a key has one entry for each of its different meanings."""
    lines = []
    for name, variants in keys.items():
        anchor = f'<a id="{(prefix + name).replace(".", "-")}"></a>'
        for key in variants:
            kinds = f" ({', '.join(key.kinds)})" if key.kinds else ""
            lines.append(f"- {anchor}`{name}`{kinds}: {key.type}; {_default(key)}.")
            lines.append(f"  {_sentence(key.description)}")
            anchor = ""
    return [*lines, ""]


def _default(key: Key) -> str:
    if key.required:
        return "required"
    return "optional" if key.default is None else f"default `{key.default}`"


def _sentence(text: str) -> str:
    """Begin with a capital letter and end with a full stop."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
