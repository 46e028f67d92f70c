"""`kdedge augment RECIPE`: make new texts and measure what they are worth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from kdedge.cli.console import (
    ConsoleProgress,
    make_table,
    print_json,
    print_line,
    print_message,
    results,
)
from kdedge.cli.options import (
    RecipeArguments,
    force_option,
    json_option,
    load_data,
    recipe_options,
)
from kdedge.errors import UsageError
from kdedge.io.atomic import write_atomic
from kdedge.run.processes import is_main
from kdedge.run.progress import SILENT, Progress
from kdedge.run.stage import StageContext, read_result
from kdedge.runtime.cleaning import changes

if TYPE_CHECKING:
    import numpy as np

    from kdedge.distillation.learning_curve import CurvePoint, LearningCurve
    from kdedge.distillation.student_training import DistillContext
    from kdedge.recipe import AugmentConfig
    from kdedge.runtime.spec import TaskSpec
    from kdedge.transfer.label_shift import LabelShift

EXAMPLES = 3
"""Number of texts that are shown per source."""

SHOWN_CHARACTERS = 160

CLEANED = "changed by cleaning"
"""The last column of the table of sources, if the recipe cleans texts."""

COLUMNS = ("source", "target", "attempts", "produced", "used", "rejected")
"""Columns of the table of sources."""

MUCH_SHIFT = 0.3
"""Label shift from which a source may be pointed out."""

ONE_LABEL = 0.95
"""A source of new texts is pointed out if so many of them have the same label."""

SHOWN_LABELS = 3
"""Number of labels that are shown per source."""

FEWER_CHANGES = {
    "rules": "augment.rules.mask, .exchange and .window",
    "replace": "augment.replace.probability",
}
"""Origin -> the keys that say how much of a text is changed."""

CURVE_COLUMNS = ("texts from", "per labelled text", "texts", "agreement", "gain", "behind the best")
"""Columns of the table of the learning curve; the last one is the task's metric."""


@click.command()
@recipe_options
@click.option(
    "--curve",
    is_flag=True,
    help="Train the first student on growing numbers of texts and plot how well it agrees with the "
    "teacher.",
)
@force_option
@json_option
def augment(arguments: RecipeArguments, curve: bool, force: bool, as_json: bool) -> None:
    """Make the texts of RECIPE's [augment] table and let the teacher label them.

    Prints the number of texts from each source, why filters rejected texts, which labels the
    teacher gives, and examples. With --curve the first student is trained on the labelled texts
    only, on each source, and on growing numbers of texts; it is compared by its agreement with the
    teacher on new texts that are kept apart. The last column is the score on the validation split.

    \b
    Example: kdedge augment configs/quickstart.toml --set augment.rules.mask=0.1 --curve
    """
    recipe = arguments.load()
    if recipe.augment is None:
        raise UsageError(
            "the recipe has no [augment] table",
            str(arguments.recipe),
            "add one, for example with --set augment.rules.mask=0.1",
        )
    augment = recipe.augment_in_use
    if augment is None:
        raise UsageError(
            "the recipe asks for no new texts",
            "augment.size is 0",
            "set augment.size to the number of new texts per training text",
        )
    progress: Progress = ConsoleProgress() if is_main() else SILENT
    stages = StageContext(force, progress)
    task = load_data(recipe, progress)
    # Imported here so that errors in the recipe and the data are reported sooner.
    from kdedge.distillation.general import train_general_students
    from kdedge.distillation.pipeline import prepare_context
    from kdedge.distillation.transfer_stage import check_apart, measure_learning_curve
    from kdedge.run.layout import RunDir
    from kdedge.run.threads import prepare_process
    from kdedge.transfer.label_shift import measure_label_shift

    prepare_process(recipe.threads or 1)
    run = RunDir.create(recipe, arguments.runs)
    with run.locked():
        context = prepare_context(recipe, run, task=task, stages=stages)
        transfer = context.transfer
        shifts = measure_label_shift(task.spec, transfer.logits, transfer.texts)
        if is_main():
            results().print(_sources_table(context))
            results().print(_labels_table(shifts))
            results().print(_examples_table(context))
            _point_out_shift(shifts)
        learning_curve = None
        if curve:
            check_apart(context)
            train_general_students(run, context.task, stages)
            learning_curve = measure_learning_curve(context)
    if not is_main():
        return
    if learning_curve:
        _show_curve(context, augment, learning_curve)
    print_line(f"run: {run.folder}")
    if as_json:
        print_json(_document(context, shifts, learning_curve))


def _sources_table(context: DistillContext) -> Table:
    from kdedge.augment.counts import read_source_counts
    from kdedge.transfer.result import TransferResult

    sources = read_source_counts(context.run.augment)
    is_cleaned = any(counts.cleaned for counts in sources.values())
    table = make_table(
        f"{context.recipe.name}: new texts for {len(context.task.train):,} labelled ones",
        [*COLUMNS, CLEANED] if is_cleaned else list(COLUMNS),
        left=("source", "rejected", CLEANED),
    )
    for source, counts in sources.items():
        numbers = (counts.target, counts.attempts, counts.produced, counts.used)
        cells = [f"{number:,}" for number in numbers]
        rejected = ", ".join(f"{reason} {count:,}" for reason, count in counts.rejected.items())
        cells.append(rejected or "none")
        if is_cleaned:
            cells.append(changes(counts.cleaned))
        table.add_row(source, *cells)
    for reason, count in read_result(context.run.transfer, TransferResult).rejected.items():
        if count:
            table.add_row("all, by the teacher", "", "", "", f"-{count:,}", reason)
    return table


def _labels_table(shifts: dict[str, LabelShift]) -> Table:
    columns = ["source", "texts", "labels", "label shift"]
    table = make_table("the teacher's labels", columns, left=("source", "labels"))
    for origin, labels in shifts.items():
        table.add_row(origin, f"{labels.texts:,}", _labels_cell(labels), f"{labels.shift:.2f}")
    return table


def _labels_cell(labels: LabelShift) -> str:
    """Show the most frequent labels, or the quartiles of a regression."""
    if labels.quartiles:
        low, median, high = labels.quartiles
        return f"half of the texts from {low:.2f} to {high:.2f}, median {median:.2f}"
    shown = list(labels.shares.items())[:SHOWN_LABELS]
    cell = ", ".join(f"{label} {100 * share:.0f} %" for label, share in shown)
    return cell if len(shown) == len(labels.shares) else f"{cell}, ..."


def _point_out_shift(shifts: dict[str, LabelShift]) -> None:
    """Name sources whose texts get other labels than the labelled ones.

    These are texts that are changed too much, and new texts with hardly more than one label.
    """
    for origin, labels in shifts.items():
        if labels.shift < MUCH_SHIFT:
            continue
        top, share = next(iter(labels.shares.items()), ("", 0.0))
        if origin in FEWER_CHANGES:
            print_message(
                f"{origin}: the teacher gives other labels than to the labelled texts (label shift "
                f"{labels.shift:.2f}). If the changes destroy what a label depends on, change "
                f"less: lower {FEWER_CHANGES[origin]}"
            )
        elif share >= ONE_LABEL:
            labelled = shifts["labelled"].shares[top]
            print_message(
                f"{origin}: the teacher gives {top!r} to {100 * share:.1f} % of these texts, and "
                f"to {100 * labelled:.1f} % of the labelled ones. Texts with one label say "
                "little about the others: leave this source out, or lower augment.filters.balance"
            )


def _examples_table(context: DistillContext) -> Table:
    columns = ["source", "text", "prediction"]
    table = make_table("examples with the teacher's predictions", columns, left=tuple(columns))
    texts = context.transfer.texts
    for origin in dict.fromkeys(texts.origins):
        for row in texts.rows(origin)[:EXAMPLES].tolist():
            text = texts.texts[row]
            if texts.pairs:
                text += f" | {texts.pairs[row]}"
            prediction = describe_logits(context.task.spec, context.transfer.logits[row])
            table.add_row(origin, text[:SHOWN_CHARACTERS], prediction[:SHOWN_CHARACTERS])
    return table


def describe_logits(spec: TaskSpec, logits: np.ndarray) -> str:
    """Name the labels that logits (C,) predict, or format the predicted number."""
    if spec.kind == "regression":
        return f"{logits[0]:.2f}"
    if spec.kind == "multilabel":
        from kdedge.runtime.metrics import decide

        predicted = decide(spec, logits)
        return ", ".join(spec.labels[i] for i in predicted.nonzero()[0]) or "none"
    return spec.labels[int(logits.argmax())]


def _show_curve(context: DistillContext, config: AugmentConfig, curve: LearningCurve) -> None:
    from kdedge.distillation.learning_curve_plot import plot_learning_curve

    metric = context.task.spec.metric
    results().print(_curve_table(curve, metric))
    path = context.run.curve / "curve.svg"
    write_atomic(path, plot_learning_curve(curve, context.recipe.name))
    _point_out_end(config, curve)
    print_line(f"picture: {path}")


def _point_out_end(config: AugmentConfig, curve: LearningCurve) -> None:
    """Say why the largest sizes of a curve were not measured."""
    largest = max(point.size for point in curve.points)
    none, *others = curve.points
    if largest >= max(config.curve):
        return
    several = len({point.sources for point in others}) > 1
    if several and all(point.agreement < none.agreement for point in others):
        print_message("no source helps alone, so larger sizes were not measured")
    else:
        line = f"the curve ends at {largest:.3g} texts per labelled one: there are no more"
        if config.size != "auto":
            line += f'; augment.size = "auto" makes {max(config.curve):g} and those kept apart'
        print_message(line)


def _curve_table(curve: LearningCurve, metric: str) -> Table:
    table = make_table(
        f"what the texts are worth: agreement with the teacher on {curve.apart:,} new texts",
        [*CURVE_COLUMNS, metric],
        left=("texts from",),
    )
    for point in curve.points:
        table.add_row(
            "+".join(point.sources) or "labelled only",
            f"{point.size:.3g}",
            f"{point.texts:,}",
            _score_cell(point, chosen=point == curve.chosen),
            _gain_cell(point, baseline=curve.points[0]),
            _distance_cell(point, best=curve.best),
            f"{point.validation:.4f}",
        )
    return table


def _score_cell(point: CurvePoint, *, chosen: bool) -> str:
    score = f"{point.agreement:.4f}"
    if point.sd is not None:
        score += f" ± {point.sd:.4f}"
    return f"{score} <" if chosen else score


def _gain_cell(point: CurvePoint, baseline: CurvePoint) -> str:
    if not point.sources:
        return "–"
    gain = point.agreement - baseline.agreement
    return f"{gain:+.4f} does not help" if gain < 0 else f"{gain:+.4f}"


def _distance_cell(point: CurvePoint, best: CurvePoint) -> str:
    if not point.error:
        return "–"
    return f"{best.agreement - point.agreement:.4f} ± {point.error:.4f}"


def _document(
    context: DistillContext, shifts: dict[str, LabelShift], curve: LearningCurve | None
) -> dict[str, Any]:
    from kdedge.augment.counts import read_source_counts
    from kdedge.transfer.result import TransferResult

    transfer = read_result(context.run.transfer, TransferResult)
    sources = read_source_counts(context.run.augment)
    document = {
        "run": str(context.run.folder),
        "sources": {name: counts.to_json() for name, counts in sources.items()},
        "origins": transfer.origins,
        "rejected": transfer.rejected,
        "labels": {origin: shift.to_json() for origin, shift in shifts.items()},
    }
    if curve:
        document["curve"] = curve.to_json()
    return document
