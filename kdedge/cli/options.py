"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

RECIPE_OPTIONS = (
    click.argument("recipe", type=click.Path(path_type=Path)),
    click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        help="Override one key of the recipe; may be repeated.",
    ),
    click.option(
        "--runs",
        type=click.Path(path_type=Path),
        default=Path("runs"),
        show_default=True,
        help="Folder of all runs.",
    ),
    click.option("--force", is_flag=True, help="Make stages again whose inputs have changed."),
    click.option(
        "--threads",
        type=click.IntRange(min=1),
        help="CPU threads for training; default: those the run began with, or all cores.",
    ),
    click.option("--json", "as_json", is_flag=True, help="End stdout with one JSON document."),
)


def recipe_command(function: click.decorators.FC) -> click.decorators.FC:
    """The argument and options that every command on a recipe has."""
    for option in reversed(RECIPE_OPTIONS):
        function = option(function)
    return function
