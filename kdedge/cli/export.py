"""`kdedge export RUN`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from kdedge.cli.console import ConsoleProgress, make_table, print_json, print_line, results
from kdedge.cli.export_kits import kit_options, write_all_kits
from kdedge.cli.export_web import WebOptions, web_options, write_web_pages
from kdedge.cli.options import (
    OutputOptions,
    default_option,
    device_option,
    json_option,
    load_data,
    option_group,
    wide_option,
)
from kdedge.errors import UsageError
from kdedge.export.options import DEFAULT_OPTIONS, ExportOptions
from kdedge.export.scheme import QuantScheme
from kdedge.run.stage import StageContext
from kdedge.runtime.layout import MANIFEST

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from kdedge.runtime import Manifest

SHOWN_LAYERS = 5
"""Number of sensitive layers that are printed; the manifest lists all."""


def export_options(
    precision: str,
    portable: bool,
    scheme: str,
    weight_bits: str,
    no_qat: bool,
    trim_vocab: int | None,
    golden_from: str,
) -> ExportOptions:
    """Convert the options of the command line."""
    precisions = ("fp32", "int8", "fp16") if precision == "all" else (precision,)
    if portable:
        precisions = (*precisions, "portable")
    return ExportOptions(
        precisions,
        QuantScheme.named(scheme, int(weight_bits)),
        tune=not no_qat,
        trim_vocab=trim_vocab,
        golden_from=golden_from,
    )


@dataclass(frozen=True)
class ExtraOptions:
    """What a bundle holds besides the model: a signature, a bill of materials, the test split."""

    sign: Path | None
    sbom: bool
    with_eval: bool


@click.command()
@click.argument("run", type=click.Path(path_type=Path, exists=True, file_okay=False))
@option_group(
    "options",
    export_options,
    default_option(
        "--precision",
        click.Choice(["auto", "int8", "fp32", "fp16", "all"]),
        "auto",
        "ONNX files to pack. auto: int8, or fp32 if int8 loses too much. fp16: for GPUs; a BiLSTM "
        "has none. all: fp32, int8 and fp16.",
    ),
    click.option(
        "--portable",
        is_flag=True,
        help="Also write int8 in plain ONNX operators, for other runtimes.",
    ),
    default_option(
        "--scheme",
        click.Choice(["static", "dynamic"]),
        "static",
        "Fix activation ranges at export (static), or compute them per batch (dynamic).",
    ),
    default_option(
        "--weight-bits",
        click.Choice(["7", "8"]),
        "7",
        "Bits of int8 weights; 8 bits overflow on CPUs without VNNI.",
    ),
    click.option(
        "--no-qat", is_flag=True, help="Only calibrate; skip quantization-aware training."
    ),
    click.option(
        "--trim-vocab",
        type=click.IntRange(min=1),
        help="Number of tokens to keep in a student's vocabulary. "
        "Default: as in the recipe, else all.",
    ),
    click.option(
        "--golden-from",
        type=click.Choice(["neutral", "test"]),
        default="neutral",
        show_default=True,
        help="Texts of golden.json: neutral ones that come with kdedge, or 16 of the test split.",
    ),
)
@kit_options
@option_group(
    "extras",
    ExtraOptions,
    click.option(
        "--sign",
        type=click.Path(path_type=Path),
        metavar="KEY.pem",
        help="Sign the bundles with this private ed25519 key; needs cryptography.",
    ),
    click.option(
        "--sbom", is_flag=True, help="Write a bill of materials (CycloneDX 1.6) into the bundles."
    ),
    click.option(
        "--with-eval",
        is_flag=True,
        help="Pack all texts and labels of the test split, and the teacher's logits, so that"
        " `kdedge bench` can measure quality on a device. Whoever has the bundle can read them.",
    ),
)
@web_options
@device_option
@click.option("--force", is_flag=True, help="Export again even if nothing has changed.")
@option_group("output", OutputOptions, wide_option, json_option)
def export(
    run: Path,
    options: ExportOptions,
    kits: tuple[str, ...],
    extras: ExtraOptions,
    web: WebOptions,
    force: bool,
    output: OutputOptions,
) -> None:
    """Write the students of RUN as ONNX files, compare them with torch, and pack bundles.

    RUN is a run folder (all its students) or the folder of one student in it. With the static
    scheme, activation ranges are calibrated on the transfer set. They are trained with the student
    if calibration changes too much ([student.quantize] in the recipe). With the dynamic scheme, a
    prediction can depend on the other texts of its batch.

    RUN may also be a bundle, which stays as it is: --kit, --web and --sign add something to it.

    \b
    Example: kdedge export runs/quickstart
    Example: kdedge export bundle --kit cpp
    Example: kdedge export runs/quickstart/tinybert/bundle --web
    """
    sign = extras.sign
    key = _read_key(sign) if sign else None  # A wrong key is reported before any work.
    options = replace(options, sbom=extras.sbom, with_eval=extras.with_eval)
    if (run / MANIFEST).is_file():
        has_work = bool(kits) or web.wanted or key is not None
        _check_bundle_options(run, options, has_work=has_work)
        bundles = [run]
    else:
        stages = StageContext(force, ConsoleProgress())
        bundles = export_and_show(run, options=options, stages=stages, wide=output.wide)
    if key is not None:
        _sign(bundles, key)
    documents = []
    for bundle, folders in zip(bundles, write_all_kits(bundles, kits), strict=True):
        documents.append(_document(bundle) | {"kits": folders})
    if web.wanted:
        for document, page in zip(documents, write_web_pages(bundles, web), strict=True):
            document.update(page)
    _point_out_outdated(bundles)
    if output.as_json:
        print_json({"bundles": documents})


def _point_out_outdated(bundles: Sequence[Path]) -> None:
    """Name the kits and pages next to bundles that still hold the files of an earlier export."""
    from kdedge.export.target import outdated_copies
    from kdedge.runtime import Bundle

    for bundle in bundles:
        for option, folder in outdated_copies(bundle, Bundle.open(bundle).manifest).items():
            print_line(f"{folder} is of an earlier export: write it again with {option}")


def _check_bundle_options(bundle: Path, options: ExportOptions, *, has_work: bool) -> None:
    """Raise UsageError if RUN is a bundle, and no option or a wrong one says what to do with it."""
    if options != DEFAULT_OPTIONS:
        raise UsageError(
            "a finished bundle stays as it is",
            "only --kit, --c, --web and --sign can be used with it",
            "leave the other options out, or name the run instead of its bundle",
        )
    if not has_work:
        raise UsageError(
            "this folder is a bundle already",
            str(bundle),
            "name the folder of its run, or add --kit, --c, --web or --sign",
        )


def _read_key(path: Path) -> Ed25519PrivateKey:
    from kdedge.runtime.signature import read_private_key

    return read_private_key(path)


def _sign(bundles: list[Path], key: Ed25519PrivateKey) -> None:
    from kdedge.runtime import Bundle
    from kdedge.runtime.signature import sign_bundle

    for folder in bundles:
        print_line(f"signed: {sign_bundle(Bundle.open(folder), key)}")


def export_and_show(
    folder: Path,
    *,
    options: ExportOptions = DEFAULT_OPTIONS,
    stages: StageContext,
    wide: bool = False,
) -> list[Path]:
    """Export the students of a folder and print a table of their files; return the bundles."""
    from kdedge.run.layout import RunDir

    run, students = RunDir.open(folder)
    for name in students:
        run.students[name].require_trained()
    task = load_data(run.recipe, stages.progress)
    # Imported here so that errors in the run and its data are reported sooner.
    import torch

    from kdedge.export.export import export_run
    from kdedge.run.threads import prepare_process, silence_transformers
    from kdedge.runtime import Bundle

    silence_transformers()
    if run.recipe.threads:
        prepare_process(run.recipe.threads)  # QAT is training
    with run.locked(), torch.random.fork_rng():
        bundles = export_run(run, students, options=options, task=task, stages=stages)
    manifests = [Bundle.open(bundle).manifest for bundle in bundles]
    for manifest in manifests:
        results(wide=wide).print(_table(manifest, wide=wide))
    for bundle, manifest in zip(bundles, manifests, strict=True):
        for line in [*_warnings(manifest), *_sensitive_layers(manifest)]:
            print_line(f"{manifest.name}: {line}")
        print_line(f"bundle: {bundle}")
        print_line(f"digest: {manifest.digest()}")
    return bundles


def _table(manifest: Manifest, *, wide: bool = False) -> Table:
    """Make the table of one bundle; without `wide` it fits into 80 columns."""
    columns = [
        "variant",
        "packed as",
        manifest.spec.metric,
        "retention",
        "same predictions",
        "bytes",
        "p50 µs",
        "speedup",
    ]
    title = f"{manifest.name}: variants on the test split; one text at a time on one thread"
    names = columns if wide else [name for name in columns if name != "packed as"]
    table = make_table(title, names, left=("variant", "packed as"))
    for variant, packed_as, *figures, speedup in _rows(manifest):
        if wide:
            table.add_row(variant, packed_as, *figures, speedup)
            continue
        name = variant if packed_as == "-" else f"{variant} ({packed_as})"
        table.add_row(name, *figures, speedup.partition(" ")[0])
    return table


def _rows(manifest: Manifest) -> Iterator[tuple[str, ...]]:
    """Format the variants of a student, such as float, calibrated and tuned."""
    from kdedge.export.figures import FLOAT, VariantDecision, times

    variants = VariantDecision.from_json(manifest.parity["variants"])
    teacher_score = manifest.scores["teacher"]
    packed_as = {}
    for variant, precision in (
        (FLOAT, "fp32"),
        (variants.int8, "int8"),
        ("fp16", "fp16"),
        ("portable", "portable"),
    ):
        if precision in manifest.precisions:
            packed_as[variant] = precision
    for name, figures in variants.rows():
        retention = figures.metric / teacher_score if teacher_score > 0 else None
        yield (
            name,
            packed_as.get(name, "-"),
            f"{figures.metric:.4f}",
            "-" if retention is None else f"{100 * retention:.1f} %",
            f"{100 * figures.agreement:.2f} %",
            f"{figures.bytes:,}",
            f"{figures.p50_us:,.0f}",
            times(figures.speedup),
        )


def _warnings(manifest: Manifest) -> Iterator[str]:
    """List the reasons not to use the int8 file."""
    from kdedge.export.figures import VariantDecision
    from kdedge.export.parity import SAME_PREDICTIONS

    variants = VariantDecision.from_json(manifest.parity["variants"])
    if variants.loss_reason:
        yield f"int8 does not pay: {variants.loss_reason}; the bundle has no int8 file"
    if variants.slow_reason:
        yield f"int8 only saves bytes on this machine: {variants.slow_reason}"
    if variants.int8:
        changed = 1 - variants.files[variants.int8].agreement
        if changed > 1 - SAME_PREDICTIONS:
            yield f"int8 changes {100 * changed:.1f} % of the float student's predictions"


def _sensitive_layers(manifest: Manifest) -> Iterator[str]:
    """Name the layers whose rounding changes the logits most."""
    tuning = manifest.parity.get("int8", {}).get("tuning", {})
    sensitivity = tuning.get("sensitivity", {})
    if not sensitivity:
        return
    worst = sorted(sensitivity, key=lambda name: -sensitivity[name])[:SHOWN_LAYERS]
    names = ", ".join(f"{name} {sensitivity[name]:.2g}" for name in worst)
    yield f"logits change most when these of {len(sensitivity)} layers are quantized: {names}"


def _document(folder: Path) -> dict[str, Any]:
    from kdedge.runtime import Bundle

    manifest = Bundle.open(folder).manifest
    return {
        "bundle": str(folder),
        "digest": manifest.digest(),
        "scores": dict(manifest.scores),
        "parity": dict(manifest.parity),
        "files": dict(manifest.files),
    }
