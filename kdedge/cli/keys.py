"""`kdedge keys [PREFIX]`: the reference of a recipe's keys."""

from __future__ import annotations

import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from kdedge.cli.console import print_json, print_line, text_width
from kdedge.cli.options import json_option

if TYPE_CHECKING:
    from kdedge.recipe.reference import Key

INDENT = "    "


@click.command()
@click.argument("prefix", default="")
@click.option("--schema", is_flag=True, help="Print the JSON schema of a recipe.")
@json_option
def keys(prefix: str, schema: bool, as_json: bool) -> None:
    """List the tables and keys of a recipe: name, type, default and meaning.

    PREFIX is a key or a table, such as student.fit. Editors can check recipes with the JSON
    schema.

    \b
    Example: kdedge keys
    Example: kdedge keys student.fit
    Example: kdedge keys --schema > recipe.schema.json
    """
    from kdedge.recipe import Recipe
    from kdedge.recipe.reference import recipe_entries, recipe_keys

    if schema:
        print_json(Recipe.model_json_schema())
        return
    if as_json:
        print_json({"keys": [asdict(key) for key in recipe_keys(prefix)]})
        return
    for entry in recipe_entries(prefix):
        _print_entry(entry)


def _print_entry(entry: Key) -> None:
    """Print a key with its type and default, or a table with its meaning."""
    from kdedge.recipe.reference import TABLE

    texts = [entry.description]
    head = f"[{entry.name}]"
    if entry.type != TABLE:
        head = entry.name
        texts.insert(0, _type_and_default(entry))
    if entry.kinds:
        head += f" ({', '.join(entry.kinds)})"
    print_line(head)
    for text in texts:
        for line in textwrap.wrap(text, text_width() - len(INDENT), break_on_hyphens=False):
            print_line(INDENT + line)


def _type_and_default(key: Key) -> str:
    if key.required:
        return f"{key.type}; required"
    return key.type if key.default is None else f"{key.type}; default {key.default}"
