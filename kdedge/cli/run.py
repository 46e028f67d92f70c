"""`kdedge run RECIPE`: distill, export and bench in one go."""

from __future__ import annotations

import click

from kdedge.cli.console import ConsoleProgress
from kdedge.cli.options import (
    OutputOptions,
    RecipeArguments,
    json_option,
    load_data,
    option_group,
    recipe_options,
    strict_option,
    wide_option,
)
from kdedge.run.stage import StageContext


@click.command()
@recipe_options
@click.option(
    "--force",
    is_flag=True,
    help="Replace stages whose inputs or files have changed; export and measure again.",
)
@option_group("output", OutputOptions, wide_option, strict_option, json_option)
def run(arguments: RecipeArguments, force: bool, output: OutputOptions) -> None:
    """Distill, export and bench RECIPE, and print a table of retention and speedup.

    A finished stage is reused, and so is a report on the same bundles, with the same settings, on
    the same machine; --force measures again.

    \b
    Example: kdedge run configs/quickstart.toml
    """
    stages = StageContext(force, ConsoleProgress())
    recipe = arguments.load()
    task = load_data(recipe, stages.progress)
    # Imported here so that errors in the recipe and the data are reported sooner.
    from kdedge.cli.bench_measure import bench_and_show
    from kdedge.cli.export import export_and_show
    from kdedge.distillation.pipeline import distill

    finished = distill(recipe, arguments.runs, task=task, stages=stages)
    export_and_show(finished.folder, stages=stages, wide=output.wide)
    bench_and_show(finished.folder, output, progress=stages.progress, force=force)
