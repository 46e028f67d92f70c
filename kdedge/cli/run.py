"""`kdedge run RECIPE`: the whole line, recipe to report.

The rooms above this one are named as strings and imported when their turn comes.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import click

from kdedge.cli.console import ConsoleProgress
from kdedge.cli.options import recipe_command
from kdedge.distillation.pipeline import distill
from kdedge.recipe import load_recipe
from kdedge.run.stage import StageContext
from kdedge.run.threads import settle_threads

EXPORT = "kdedge.cli.export:export_and_show"
BENCH = "kdedge.cli.bench:bench_and_show"


@click.command()
@recipe_command
def run(
    recipe: Path,
    overrides: tuple[str, ...],
    runs: Path,
    force: bool,
    threads: int | None,
    as_json: bool,
) -> None:
    """Distill, export and bench RECIPE; ends with the table of what was kept and what was gained.

    \b
    Example: kdedge run configs/quickstart.toml
    """
    stages = StageContext(force, ConsoleProgress())
    settled = settle_threads(load_recipe(recipe, overrides), runs, threads)
    made = distill(settled, runs, stages=stages)
    _room(EXPORT)(made.folder, stages=stages)
    _room(BENCH)(made.folder, as_json=as_json, progress=stages.progress)


def _room(name: str) -> Any:
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)
