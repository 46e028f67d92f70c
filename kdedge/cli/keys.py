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
    """List the keys of a recipe: name, type, default and meaning.

    PREFIX is a key or a table, such as student.fit. Editors can check recipes with the JSON
    schema.

    \b
    Example: kdedge keys
    Example: kdedge keys student.fit
    Example: kdedge keys --schema > recipe.schema.json
    """
    from kdedge.recipe import Recipe
    from kdedge.recipe.reference import recipe_keys

    if schema:
        print_json(Recipe.model_json_schema())
        return
    chosen = recipe_keys(prefix)
    if as_json:
        print_json({"keys": [asdict(key) for key in chosen]})
        return
    for key in chosen:
        _print_key(key)


def _print_key(key: Key) -> None:
    head = key.name
    if key.kinds:
        head += f" ({', '.join(key.kinds)})"
    details = key.type
    if key.required:
        details += "; required"
    elif key.default is not None:
        details += f"; default {key.default}"
    print_line(head)
    for text in (details, key.description):
        for line in textwrap.wrap(text, text_width() - len(INDENT), break_on_hyphens=False):
            print_line(INDENT + line)
