"""`kdedge tune RECIPE`."""

from __future__ import annotations

import math
from typing import Any

import click
from rich.table import Table

from kdedge.cli.console import ConsoleProgress, make_table, print_json, print_line, results
from kdedge.cli.options import (
    RecipeArguments,
    default_option,
    json_option,
    load_data,
    recipe_options,
)


@click.command()
@recipe_options
@default_option(
    "--workers",
    click.IntRange(min=1),
    1,
    "Processes that share the trials; each uses --threads threads.",
)
@click.option(
    "--storage",
    metavar="URL",
    help="Database of the trials, for several machines. Default: an SQLite file in the run.",
)
@json_option
def tune(arguments: RecipeArguments, workers: int, storage: str | None, as_json: bool) -> None:
    """Search for better values of keys of RECIPE's student, and write the best recipe.

    The table [tune.ranges] lists the values to try. The teacher and the transfer set are made
    once. Trials are compared on the validation split only. The same command continues an
    interrupted search. Afterwards, run `kdedge distill` with the best recipe.

    \b
    Example: kdedge tune configs/quickstart-tune.toml --workers 2
    """
    from kdedge.tuning.checks import check_recipe

    progress = ConsoleProgress()
    recipe = arguments.load()
    check_recipe(recipe)
    task = load_data(recipe, progress)
    # Imported here so that errors in the recipe and the data are reported sooner.
    from kdedge.run.threads import prepare_process
    from kdedge.tuning.run import read_trials
    from kdedge.tuning.run import tune as tune_recipe

    prepare_process(recipe.threads or 1)
    folder = tune_recipe(
        recipe,
        arguments.runs,
        task=task,
        storage=storage,
        workers=workers,
        progress=progress,
        worker_progress=ConsoleProgress,
    )
    trials = read_trials(folder)
    results().print(_table(recipe.name, trials))
    print_line(f"best recipe: {folder / 'best.toml'}")
    if as_json:
        print_json({"folder": str(folder), "trials": trials})


def _table(name: str, trials: list[dict[str, Any]]) -> Table:
    """List the finished trials, best first; `*` marks the Pareto front of score and latency."""
    finished = [trial for trial in trials if trial["state"] == "complete"]
    finished.sort(key=lambda trial: (-trial["score"], trial["share_of_time"]))
    table = make_table(
        f"{name}: {len(finished)} of {len(trials)} trials finished, scores on the validation split",
        ["trial", "score", "teacher's time", "front", "values"],
        left=("values",),
    )
    fastest = math.inf
    for trial in finished:
        on_front = trial["share_of_time"] < fastest
        fastest = min(fastest, trial["share_of_time"])
        values = []
        for key, value in trial["values"].items():
            values.append(f"{key.removeprefix('student.')}={value}")
        table.add_row(
            str(trial["number"]),
            f"{trial['score']:.4f}",
            f"{100 * trial['share_of_time']:.1f} %",
            "*" if on_front else "",
            ", ".join(values),
        )
    return table
