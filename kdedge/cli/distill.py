"""`kdedge distill RECIPE`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from kdedge.cli.console import ConsoleProgress, results
from kdedge.cli.options import recipe_command
from kdedge.cli.sagemaker import SageMakerCommand, TrainingJob
from kdedge.cli.sagemaker_output import JobProgress, write_job_output
from kdedge.distillation.scores import learned_maps, scores
from kdedge.distillation.seeds import distill_seeds, distillation_gains, seed_stats, seeds_json
from kdedge.evaluation.statistics import SeedStats
from kdedge.recipe import load_recipe
from kdedge.run.layout import RunDir
from kdedge.run.processes import is_main
from kdedge.run.progress import SILENT
from kdedge.run.stage import StageContext
from kdedge.run.threads import settle_threads


@click.command(cls=SageMakerCommand)
@recipe_command
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Train the students so many times; ends with mean, sd and interval.",
)
def distill(
    recipe: Path,
    overrides: tuple[str, ...],
    runs: Path,
    force: bool,
    threads: int | None,
    as_json: bool,
    seeds: int,
) -> None:
    """Train the students of RECIPE from its teacher.

    Stages that stand from equal inputs are kept; a run that was cut off goes on where it stopped.

    \b
    Example: kdedge distill configs/sst2-tinybert.toml --set student.fit.epochs=1
    """
    settled = settle_threads(load_recipe(recipe, overrides), runs, threads)
    container = TrainingJob.of(os.environ)
    progress = SILENT if not is_main() else JobProgress() if container else ConsoleProgress()
    made = distill_seeds(settled, runs, seeds, stages=StageContext(force, progress))
    if not is_main():
        return
    found = seed_stats(made) if seeds > 1 else {}
    taught = distillation_gains(made) if seeds > 1 else {}
    if found:
        results().print(seeds_table(made[0].recipe.name, found))
    for name, gain in taught.items():
        results().print(
            f"{name} less its label-only baseline: {gain}",
            soft_wrap=True,
            markup=False,
            highlight=False,
        )
    if container:
        write_job_output(made, container, found, taught)
    show(made[0], as_json, seeds_json(found, taught) if found else {})


def show(run: RunDir, as_json: bool, more: dict[str, Any] | None = None) -> None:
    """The scores of a run's models: a table, or one JSON line at the end of stdout."""
    rows = scores(run)
    table = Table(title=f"{run.recipe.name}: scores on the test split")
    several = any(row.temperature is not None for row in rows)
    for column in (
        "model",
        rows[0].metric,
        "retention",
        "validation",
        "parameters",
        *(["temperature"] if several else []),
    ):
        table.add_column(column, justify="left" if column == "model" else "right")
    for row in rows:
        retention = "-" if row.retention is None else f"{100 * row.retention:.1f} %"
        temperature = "" if row.temperature is None else f"{row.temperature:.4g}"
        table.add_row(
            row.model,
            f"{row.test:.4f}",
            retention,
            f"{row.validation:.4f}",
            f"{row.parameters:,}",
            *([temperature] if several else []),
        )
    results().print(table)
    for name, shares in learned_maps(run).items():
        results().print(map_table(name, shares))
    click.echo(f"run: {run.folder}")
    if as_json:
        click.echo(
            json.dumps(
                {"run": str(run.folder), "rows": [row.to_json() for row in rows], **(more or {})}
            )
        )


def map_table(student: str, shares: list[list[float]]) -> Table:
    """A learned layer map: one row per student layer, what share of its loss each teacher layer makes up."""
    table = Table(title=f"{student}: learned layer map, student layers by teacher layers")
    for column in ("", *(str(t + 1) for t in range(len(shares[0])))):
        table.add_column(column, justify="right")
    for layer, row in enumerate(shares):
        table.add_row(str(layer + 1), *(f"{share:.2f}" for share in row))
    return table


def seeds_table(name: str, found: dict[str, SeedStats]) -> Table:
    """One row per model: mean, standard deviation and 95 % interval of its scores over seeds."""
    table = Table(title=f"{name}: test score over seeds")
    for column in ("model", "seeds", "mean", "sd", "95 % interval"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for model, spread in found.items():
        alone = len(spread.values) == 1
        low, high = spread.interval
        table.add_row(
            model,
            str(len(spread.values)),
            f"{spread.mean:.4f}",
            "-" if alone else f"{spread.sd:.4f}",
            "-" if alone else f"{low:.4f}-{high:.4f}",
        )
    return table
