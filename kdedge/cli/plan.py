"""Print what `kdedge distill` would do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kdedge.cli.console import make_table, print_json, print_line, results, size_text

if TYPE_CHECKING:
    from rich.table import Table

    from kdedge.data.task import Task
    from kdedge.distillation.estimate import Estimate
    from kdedge.distillation.plan import PlannedStage
    from kdedge.recipe import Recipe

MEANINGS = {
    "cached": "is reused",
    "new": "will be made",
    "continues": "was interrupted and goes on",
    "restarts": "was interrupted with other inputs; its unfinished work is removed",
    "changed": "was made from other inputs; --force makes it again",
    "waits": "exists; is reused if the stages before it turn out the same",
}


def show_plan(recipe: Recipe, runs: Path, task: Task, *, as_json: bool) -> None:
    """Print the stages of a recipe, what would happen to each, and an estimate of its needs."""
    from kdedge.distillation.estimate import estimate_run
    from kdedge.distillation.plan import plan_stages

    planned = plan_stages(recipe, runs, task)
    estimate = estimate_run(recipe, task)
    results().print(_table(recipe.name, runs, planned))
    for stage in planned:
        for difference in stage.differences:
            print_line(f"{_name(runs, stage.folder)}: {difference}")
    for line in _estimate_lines(estimate):
        print_line(line)
    if as_json:
        print_json(_document(planned, estimate))


def _table(name: str, runs: Path, planned: list[PlannedStage]) -> Table:
    columns = ["stage", "state", "on disk"]
    table = make_table(f"{name}: {len(planned)} stages", columns, left=("stage", "state"))
    for stage in planned:
        size = size_text(_bytes(stage.folder)) if stage.folder.exists() else ""
        table.add_row(_name(runs, stage.folder), MEANINGS[stage.state], size)
    return table


def _name(runs: Path, folder: Path) -> str:
    return str(folder.relative_to(runs))


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _estimate_lines(estimate: Estimate) -> list[str]:
    models = [f"{name} {count:,}" for name, count in estimate.parameters.items()]
    lines = [f"parameters: {', '.join(models)}"] if models else []
    lines.append(f"disk:       about {size_text(estimate.disk)} for weights in fp32 and texts")
    if estimate.layer_cache:
        cache = size_text(estimate.layer_cache)
        lines.append(f"            and up to {cache} for the teacher's layers (transfer.layers_gb)")
    if estimate.memory:
        lines.append(
            f"memory:     at least {size_text(estimate.memory)} for the weights, gradients and"
        )
        lines.append("            moments of the largest model; activations come on top")
    if estimate.unknown:
        lines.append(f"not counted: {', '.join(estimate.unknown)}, whose shape is not known here")
    return lines


def _document(planned: list[PlannedStage], estimate: Estimate) -> dict[str, object]:
    stages = []
    for stage in planned:
        differences = list(stage.differences)
        stages.append(
            {"folder": str(stage.folder), "state": stage.state, "differences": differences}
        )
    return {"stages": stages, "estimate": vars(estimate)}
