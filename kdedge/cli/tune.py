"""`kdedge tune RECIPE`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from kdedge.cli.console import ConsoleProgress, results
from kdedge.errors import MachineError
from kdedge.recipe import load_recipe
from kdedge.run.threads import settle_threads


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override one key of the recipe; may be repeated.",
)
@click.option(
    "--runs",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="Folder of all runs.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Processes that share the trials.",
)
@click.option(
    "--storage",
    metavar="URL",
    help="Database of the trials, to share them among machines; default: a SQLite file in the run.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="CPU threads of each worker; default: as `kdedge distill`.",
)
@click.option("--json", "as_json", is_flag=True, help="End stdout with one JSON document.")
def tune(
    recipe: Path,
    overrides: tuple[str, ...],
    runs: Path,
    workers: int,
    storage: str | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Try other values for keys of RECIPE's student, and write down the best recipe.

    The table [tune.ranges] says what to try. Teacher and transfer set are made once; trials are compared on the validation split
    alone. The same command goes on where it was cut off, and with --storage on other machines too. Then distill the best
    recipe: it starts from the start.

    \b
    Example: kdedge tune configs/quickstart-tune.toml --workers 2
    """
    try:
        from kdedge.tuning.run import read_trials
        from kdedge.tuning.run import tune as tune_recipe
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("optuna", "sqlalchemy"):
            raise
        raise MachineError(
            "`kdedge tune` needs Optuna",
            f"{error.name} is not installed",
            'pip install "kdedge-toolkit[train,tune]"',
        ) from error
    settled = settle_threads(load_recipe(recipe, overrides), runs, threads)
    folder = tune_recipe(
        settled,
        runs,
        storage=storage,
        workers=workers,
        progress=ConsoleProgress(),
        worker_progress=ConsoleProgress,
    )
    rows = read_trials(folder)
    results().print(_table(settled.name, rows))
    click.echo(f"best recipe: {folder / 'best.toml'}")
    if as_json:
        click.echo(json.dumps({"folder": str(folder), "trials": rows}))


def _table(name: str, rows: list[dict[str, Any]]) -> Table:
    """Finished trials, best first; those on the front of score against latency are marked."""
    done = sorted(
        (r for r in rows if r["state"] == "complete"),
        key=lambda r: (-r["score"], r["share_of_time"]),
    )
    table = Table(
        title=f"{name}: {len(done)} finished of {len(rows)} trials, by the validation split"
    )
    for column in ("trial", "score", "teacher's time", "front", "values"):
        table.add_column(column, justify="left" if column == "values" else "right")
    fastest = float("inf")
    for r in done:
        on_front = r["share_of_time"] < fastest
        fastest = min(fastest, r["share_of_time"])
        values = ", ".join(
            f"{key.removeprefix('student.')}={value}" for key, value in r["values"].items()
        )
        table.add_row(
            str(r["number"]),
            f"{r['score']:.4f}",
            f"{100 * r['share_of_time']:.1f} %",
            "*" if on_front else "",
            values,
        )
    return table
