"""`kdedge distill RECIPE`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from kdedge.cli.console import ConsoleProgress, make_table, print_json, print_line, results
from kdedge.cli.meaning import run_warnings, warn
from kdedge.cli.options import (
    DEFAULT_OUTPUT,
    OutputOptions,
    RecipeArguments,
    default_option,
    force_option,
    json_option,
    load_data,
    option_group,
    read_data,
    recipe_options,
    strict_option,
    wide_option,
)
from kdedge.cli.plan import show_plan
from kdedge.run.processes import is_main
from kdedge.run.progress import SILENT, Progress
from kdedge.run.stage import StageContext

if TYPE_CHECKING:
    from kdedge.data.task import Task
    from kdedge.distillation.scores import ModelScores
    from kdedge.evaluation.statistics import PairedDifference, SeedStats
    from kdedge.recipe import Recipe
    from kdedge.run.layout import RunDir


@click.command()
@recipe_options
@default_option(
    "--seeds",
    click.IntRange(min=1),
    1,
    "Train the students with this many seeds, and report mean, deviation and interval.",
)
@click.option(
    "--plan", is_flag=True, help="Only list the stages: which are cached, which would be made."
)
@option_group("output", OutputOptions, wide_option, strict_option, json_option)
@force_option
def distill(
    arguments: RecipeArguments, seeds: int, plan: bool, output: OutputOptions, force: bool
) -> None:
    """Train the students of RECIPE from its teacher.

    Stages whose inputs have not changed are reused. An interrupted run continues where it stopped.

    \b
    Example: kdedge distill configs/sst2-tinybert.toml --set student.fit.epochs=1
    """
    progress: Progress = ConsoleProgress() if is_main() else SILENT
    stages = StageContext(force, progress)
    recipe = arguments.load()
    if plan:
        task = read_data(recipe, progress)
        show_plan(recipe, arguments.runs, task, as_json=output.as_json)
        return
    task = load_data(recipe, progress)
    seed_runs = run_seeds(recipe, arguments.runs, seeds, task=task, stages=stages)
    if is_main():
        show_seeds(seed_runs)
        show(seed_runs.runs[0], output, seed_runs.to_json(), task=task)
        if not output.as_json:
            progress.say("comparing with a bag of words")
        warn(run_warnings(seed_runs.runs[0], task), strict=output.strict)


@dataclass(frozen=True)
class SeedRuns:
    """Runs of one recipe with different seeds; without statistics if there is only one.

    Attributes:
        stats: Model -> its test scores over the seeds.
        gains: Student -> its test scores minus those of its label-only baseline.
    """

    runs: list[RunDir]
    stats: dict[str, SeedStats]
    gains: dict[str, PairedDifference]

    def to_json(self) -> dict[str, Any]:
        from kdedge.distillation.seeds import seeds_json

        return seeds_json(self.stats, self.gains) if self.stats else {}


def run_seeds(
    recipe: Recipe, runs: Path, seeds: int, *, task: Task | None = None, stages: StageContext
) -> SeedRuns:
    """Distill a recipe with one or more seeds and compare the scores."""
    from kdedge.distillation.seeds import distill_seeds, distillation_gains, seed_stats

    seed_runs = distill_seeds(recipe, runs, seeds, task=task, stages=stages)
    if seeds == 1 or not is_main():
        return SeedRuns(seed_runs, {}, {})
    return SeedRuns(seed_runs, seed_stats(seed_runs), distillation_gains(seed_runs))


def show_seeds(seed_runs: SeedRuns) -> None:
    """Print the statistics over seeds, if there are any."""
    if seed_runs.stats:
        results().print(seeds_table(seed_runs.runs[0].recipe.name, seed_runs.stats))
    for name, gain in seed_runs.gains.items():
        print_line(f"{name} minus its label-only baseline: {gain}")


def show(
    run: RunDir,
    output: OutputOptions = DEFAULT_OUTPUT,
    statistics: dict[str, Any] | None = None,
    *,
    task: Task | None = None,
) -> None:
    """Print the scores of a run's models, as a table and optionally as JSON.

    With the run's `task`, the table and the document also have a 95 % interval for each score.
    """
    from kdedge.distillation.scores import score_intervals, scores, stored_logits

    rows = scores(run)
    intervals = score_intervals(task, stored_logits(run, task)) if task else {}
    table = scores_table(run.recipe.name, rows, intervals)
    results(wide=output.wide).print(table)
    print_line(f"run: {run.folder}")
    if output.as_json:
        rows_json = [row.to_json() | {"interval": intervals.get(row.model)} for row in rows]
        print_json({"run": str(run.folder), "rows": rows_json, **(statistics or {})})


def scores_table(
    name: str,
    rows: list[ModelScores],
    intervals: dict[str, tuple[float, float]] | None = None,
) -> Table:
    """Make a table with one row per model."""
    intervals = intervals or {}
    score = f"{rows[0].metric} [95 %]" if intervals else rows[0].metric
    columns = ["model", score, "retention", "validation", "parameters"]
    table = make_table(f"{name}: scores on the test split", columns, left=("model",))
    for row in rows:
        cells = [
            row.model,
            _score_cell(row, intervals.get(row.model)),
            "-" if row.retention is None else f"{100 * row.retention:.1f} %",
            f"{row.validation:.4f}",
            f"{row.parameters:,}",
        ]
        table.add_row(*cells)
    return table


def _score_cell(row: ModelScores, interval: tuple[float, float] | None) -> str:
    if interval is None:
        return f"{row.test:.4f}"
    return f"{row.test:.4f} [{interval[0]:.4f}-{interval[1]:.4f}]"


def seeds_table(name: str, stats: dict[str, SeedStats]) -> Table:
    """Make a table of mean, standard deviation and 95 % interval over seeds per model."""
    columns = ["model", "seeds", "mean", "sd", "95 % interval"]
    table = make_table(f"{name}: test score over seeds", columns, left=("model",))
    for model, score in stats.items():
        sd, interval = "-", "-"
        if len(score.values) > 1:
            low, high = score.interval
            sd, interval = f"{score.sd:.4f}", f"{low:.4f}-{high:.4f}"
        table.add_row(model, str(len(score.values)), f"{score.mean:.4f}", sd, interval)
    return table
