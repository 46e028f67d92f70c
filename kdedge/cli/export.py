"""`kdedge export RUN`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import click
import torch
import transformers
from rich.table import Table

from kdedge.cli.console import ConsoleProgress, results
from kdedge.export.export import DEFAULT_OPTIONS, ExportOptions, export_run
from kdedge.export.figures import FLOAT, VariantDecision, times
from kdedge.export.parity import SAME_ANSWERS
from kdedge.export.scheme import QuantScheme
from kdedge.run.layout import RunDir
from kdedge.run.stage import StageContext
from kdedge.runtime import Bundle, Manifest

MOST_SENSITIVE = 5
"""Layers that are named at the end; all are in the manifest."""


@click.command()
@click.argument("run", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--precision",
    type=click.Choice(["all", "fp32", "fp16", "int8"]),
    default="all",
    show_default=True,
    help="Files of the bundle: fp32 and int8, or one alone.",
)
@click.option(
    "--portable",
    is_flag=True,
    help="Beside the int8 file one in plain operators of ONNX, for other runtimes.",
)
@click.option(
    "--weight-bits",
    type=click.Choice(["4", "7", "8"]),
    help="Range of int8 weights, 7 if not told: 8 overflows on CPUs without VNNI. Of weight_only 8 or 4, 8 if not told.",
)
@click.option(
    "--scheme",
    type=click.Choice(["static", "dynamic", "weight_only"]),
    default="static",
    show_default=True,
    help="How activations are rounded, as said above.",
)
@click.option("--no-qat", is_flag=True, help="Calibrate alone, without quantization-aware tuning.")
@click.option(
    "--attention",
    type=click.Choice(["float", "integers"]),
    help="The two products of attention in a TinyBERT's int8 file; default: as the recipe says, else float. Integers may pay on long texts.",
)
@click.option(
    "--trim-vocab",
    type=click.IntRange(min=1),
    help="Pieces to keep of a student's vocabulary; default: as the recipe says, else all.",
)
@click.option("--force", is_flag=True, help="Export again even where nothing has changed.")
@click.option("--json", "as_json", is_flag=True, help="End stdout with one JSON document.")
def export(
    run: Path,
    precision: str,
    portable: bool,
    weight_bits: str | None,
    scheme: str,
    no_qat: bool,
    attention: Literal["float", "integers"] | None,
    trim_vocab: int | None,
    force: bool,
    as_json: bool,
) -> None:
    """Write the students of RUN as ONNX, check them against torch and pack their bundles.

    RUN is a run folder (all its students) or the folder of one student in it. In the int8 file activations have
    fixed ranges (static), found on the transfer set and tuned with the student (the recipe's student.quantize);
    dynamic finds them while running, so that answers depend on the rest of the batch; weight_only computes in fp32
    and only stores weights in 8 bits, or in 4, as the fp16 file does in 16.

    \b
    Example: kdedge export runs/quickstart
    """
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    made_with = QuantScheme.named(scheme, int(weight_bits) if weight_bits else None)
    files = ("fp32", "int8") if precision == "all" else (precision,)
    choice = ExportOptions(
        (*files, "portable") if portable else files,
        made_with,
        tune=not no_qat,
        trim_vocab=trim_vocab,
        attention=attention,
    )
    bundles = export_and_show(run, choice=choice, stages=StageContext(force, ConsoleProgress()))
    if as_json:
        click.echo(json.dumps({"bundles": [_document(bundle) for bundle in bundles]}))


def export_and_show(
    folder: Path,
    *,
    choice: ExportOptions = DEFAULT_OPTIONS,
    stages: StageContext,
) -> list[Path]:
    """Export what `folder` means and print the table of its files; returns the bundle folders."""
    run, students = RunDir.open(folder)
    if run.recipe.threads:
        torch.set_num_threads(run.recipe.threads)  # tuning is training
    with run.locked(), torch.random.fork_rng():
        bundles = export_run(run, students, options=choice, stages=stages)
    results().print(_table([Bundle.open(bundle) for bundle in bundles]))
    for bundle in bundles:
        for line in _doubts(Bundle.open(bundle).manifest) + _sensitive(
            Bundle.open(bundle).manifest
        ):
            click.echo(line)
        click.echo(f"bundle: {bundle}")
    return bundles


def _table(bundles: list[Bundle]) -> Table:
    metric = bundles[0].manifest.spec.metric
    table = Table(
        title="each way measured itself on the test split; one text at a time on one thread, in turn"
    )
    for column in (
        "bundle",
        "way",
        "packed as",
        metric,
        "kept",
        "same answers",
        "bytes",
        "p50 µs",
        "faster",
    ):
        table.add_column(
            column, justify="left" if column in ("bundle", "way", "packed as") else "right"
        )
    for bundle in bundles:
        for row in _rows(bundle.manifest):
            table.add_row(*row)
    return table


def _rows(manifest: Manifest) -> Iterator[tuple[str, ...]]:
    """The student in fp32, calibrated and tuned, and which of them are in the bundle."""
    judged = VariantDecision.from_json(manifest.parity["variants"])
    teacher = manifest.scores["teacher"]
    names = ((FLOAT, "fp32"), (judged.int8, "int8"), ("portable", "portable"))
    packed = {way: precision for way, precision in names if precision in manifest.precisions}
    for name, way in judged.rows():
        kept = f"{100 * way.metric / teacher:.1f} %" if teacher > 0 else "-"
        figures = (
            f"{way.metric:.4f}",
            kept,
            f"{100 * way.agreement:.2f} %",
            f"{way.bytes:,}",
            f"{way.p50_us:,.0f}",
            times(way.speedup),
        )
        yield (manifest.name, name, packed.get(name, "-"), *figures)


def _doubts(manifest: Manifest) -> list[str]:
    """What speaks against the int8 file, one line each."""
    judged = VariantDecision.from_json(manifest.parity["variants"])
    left_out = (
        [
            f"{manifest.name}: int8 does not pay: {judged.loss_reason}; the bundle holds the float file alone"
        ]
        if judged.loss_reason
        else []
    )
    slow = (
        [f"{manifest.name}: int8 saves bytes alone here: {judged.slow_reason}"]
        if judged.slow_reason
        else []
    )
    same = judged.files[judged.int8].agreement if judged.int8 else 1.0
    return (
        left_out
        + slow
        + (
            [
                f"{manifest.name}: int8 changes {100 * (1 - same):.1f} % of the float student's answers"
            ]
            if same < SAME_ANSWERS
            else []
        )
    )


def _sensitive(manifest: Manifest) -> list[str]:
    """The layers that suffer most from being rounded alone, by which `student.quantize.keep_float_above` is chosen."""
    tuning = manifest.parity.get("int8", {}).get("tuning", {})
    felt = sorted(tuning.get("sensitivity", {}).items(), key=lambda item: -item[1])
    if not felt:
        return []
    told = ", ".join(f"{name} {change:.2g}" for name, change in felt[:MOST_SENSITIVE])
    kept = f"; in fp32 stay {', '.join(tuning['float_layers'])}" if tuning["float_layers"] else ""
    return [
        f"{manifest.name}: logits change most when these of {len(felt)} layers are rounded alone: {told}{kept}"
    ]


def _document(folder: Path) -> dict[str, Any]:
    manifest = Bundle.open(folder).manifest
    return {
        "bundle": str(folder),
        "scores": dict(manifest.scores),
        "parity": dict(manifest.parity),
        "files": dict(manifest.files),
    }
