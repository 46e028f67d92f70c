"""`kdedge augment RECIPE`: the texts that students would learn from, what the filters rejected, and what more of them is worth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.markup import escape
from rich.table import Table

from kdedge.augment.counts import read_round_counts
from kdedge.cli.console import ConsoleProgress, results
from kdedge.cli.options import recipe_command
from kdedge.distillation.learning_curve import LearningCurve
from kdedge.distillation.learning_curve_plot import plot_learning_curve
from kdedge.distillation.pipeline import prepare_context
from kdedge.distillation.student_training import DistillContext
from kdedge.distillation.transfer_stage import measure_learning_curve
from kdedge.errors import UsageError
from kdedge.io.atomic import write_atomic
from kdedge.recipe import load_recipe
from kdedge.run.layout import RunDir
from kdedge.run.processes import is_main
from kdedge.run.progress import SILENT
from kdedge.run.stage import StageContext, read_stage
from kdedge.run.threads import settle_threads
from kdedge.runtime.spec import TaskSpec

EXAMPLES = 3


@click.command()
@recipe_command
@click.option(
    "--curve",
    is_flag=True,
    help="Train the first student on growing parts of the texts and draw its score.",
)
def augment(
    recipe: Path,
    overrides: tuple[str, ...],
    runs: Path,
    force: bool,
    threads: int | None,
    as_json: bool,
    curve: bool,
) -> None:
    """Make the texts of RECIPE's [augment] table and let the teacher label them.

    Ends with what each source made, what the filters rejected, and some examples. With --curve the first student is trained on
    the labelled texts alone, on each source, and on growing sizes; scores are those of the validation split.

    \b
    Example: kdedge augment configs/quickstart.toml --set augment.rules.mask=0.1 --curve
    """
    settled = settle_threads(load_recipe(recipe, overrides), runs, threads)
    if settled.augment is None:
        raise UsageError(
            "the recipe has no [augment] table",
            str(recipe),
            "add one, or --set augment.rules.mask=0.1 and the like",
        )
    stages = StageContext(force, ConsoleProgress() if is_main() else SILENT)
    run = RunDir.create(settled, runs)
    with run.locked():
        context = prepare_context(settled, run, stages=stages)
        if is_main():
            results().print(_sources(context))
            results().print(_examples(context))
        growth = measure_learning_curve(context) if curve else None
        if not is_main():
            return
        if growth:
            results().print(_growth(growth, context.task.spec.metric))
            write_atomic(
                run.folder / "curve" / "curve.svg",
                plot_learning_curve(growth, context.task.spec.metric, settled.name),
            )
            if (made := max(point.size for point in growth.points)) < max(settled.augment.curve):
                click.echo(
                    f'the curve ends at {made:.3g} texts per labelled one: no more were made (augment.size = "auto" makes {max(settled.augment.curve):g})'
                )
            click.echo(f"picture: {run.folder / 'curve' / 'curve.svg'}")
    click.echo(f"run: {run.folder}")
    if as_json:
        click.echo(json.dumps(_document(context, growth)))


def _made(context: DistillContext) -> dict[str, dict[str, Any]]:
    return read_round_counts(
        context.run.shared, context.recipe.augment.rounds if context.recipe.augment else 0
    )


def _sources(context: DistillContext) -> Table:
    table = Table(
        title=f"{context.recipe.name}: new texts beside {len(context.task.train):,} labelled ones"
    )
    for column in ("source", "target", "attempts", "produced", "used", "rejected"):
        table.add_column(column, justify="left" if column in ("source", "rejected") else "right")
    for name, counts in _made(context).items():
        rejected = ", ".join(f"{reason} {count:,}" for reason, count in counts["rejected"].items())
        table.add_row(
            name,
            *(f"{counts[key]:,}" for key in ("target", "attempts", "produced", "used")),
            rejected or "none",
        )
    for reason, count in (
        (reason, count)
        for reason, count in read_stage(context.run.transfer)["result"]["rejected"].items()
        if count
    ):
        table.add_row("all, by the teacher", "", "", "", f"-{count:,}", reason)
    return table


def _examples(context: DistillContext) -> Table:
    table = Table(title="some of them, with the teacher's answer")
    for column in ("source", "text", "answer"):
        table.add_column(column)
    texts, spec = context.transfer.texts, context.task.spec
    for origin in dict.fromkeys(texts.origins):
        for row in texts.rows(origin)[:EXAMPLES].tolist():
            text = texts.texts[row] + (f" | {texts.pairs[row]}" if texts.pairs else "")
            table.add_row(
                origin,
                escape(text[:160]),
                escape(_answer(spec, context.transfer.logits[row])[:160]),
            )
    return table


def _answer(spec: TaskSpec, logits: np.ndarray) -> str:
    """What a teacher's logits (C,) say, in words."""
    if spec.kind == "regression":
        return f"{logits[0]:.2f}"
    if spec.kind == "multilabel":
        return (
            ", ".join(name for name, value in zip(spec.labels, logits, strict=True) if value > 0)
            or "none"
        )
    return spec.labels[int(logits.argmax())]


def _growth(growth: LearningCurve, metric: str) -> Table:
    table = Table(title=f"what they are worth: {metric} on the validation split")
    for column in ("texts from", "per labelled text", "texts", metric, "gain", "behind the best"):
        table.add_column(column, justify="left" if column == "texts from" else "right")
    for point in growth.points:
        gain = point.validation - growth.points[0].validation
        mark = " <" if point == growth.chosen else ""
        told = "–" if not point.sources else f"{gain:+.4f}" + (" does not help" if gain < 0 else "")
        score = f"{point.validation:.4f}" + (f" ± {point.sd:.4f}" if point.sd is not None else "")
        behind = (
            f"{growth.best.validation - point.validation:.4f} ± {point.error:.4f}"
            if point.error
            else "–"
        )
        table.add_row(
            "+".join(point.sources) or "labelled alone",
            f"{point.size:.3g}",
            f"{point.texts:,}",
            f"{score}{mark}",
            told,
            behind,
        )
    return table


def _document(context: DistillContext, growth: LearningCurve | None) -> dict[str, Any]:
    kept = read_stage(context.run.transfer)["result"]
    document = {
        "run": str(context.run.folder),
        "sources": _made(context),
        "origins": kept["origins"],
        "rejected": kept["rejected"],
    }
    return document | ({"curve": growth.to_json()} if growth else {})
