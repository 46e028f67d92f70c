"""`kdedge predict` and `kdedge verify`: the two commands a device needs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import click
from rich.text import Text

from kdedge.cli.console import results
from kdedge.errors import CheckFailed, UsageError
from kdedge.io.tabular import read_texts
from kdedge.runtime.bundle import Bundle
from kdedge.runtime.classifier import Classifier, Prediction
from kdedge.runtime.golden import TYPICAL, replay

BATCH = 32


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("texts", nargs=-1)
@click.option(
    "--pair",
    "pairs",
    multiple=True,
    help="Second text of each TEXT, for classifiers of pairs; may be repeated.",
)
@click.option(
    "--file",
    "file",
    type=click.Path(path_type=Path),
    help="Texts from a txt (one a line), csv, tsv or jsonl file.",
)
@click.option("--column", default="text", show_default=True, help="Column of the text in the file.")
@click.option(
    "--pair-column",
    default="pair",
    show_default=True,
    help="Column of the second text, for classifiers of pairs.",
)
@click.option(
    "--precision", default="auto", show_default=True, help="fp32, fp16, int8, portable, or auto."
)
@click.option(
    "--provider", default="cpu", show_default=True, help="Execution provider of ONNX Runtime."
)
@click.option(
    "--threads", type=click.IntRange(min=1), help="Threads of one answer; default: all cores."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON line a text.")
def predict(
    bundle: Path,
    texts: tuple[str, ...],
    pairs: tuple[str, ...],
    file: Path | None,
    column: str,
    pair_column: str,
    precision: str,
    provider: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Answer TEXTS, or the texts of a file, with BUNDLE.

    \b
    Example: kdedge predict runs/quickstart/tinybert/bundle "Shares fell after the bank's warning"
    Example: kdedge predict BUNDLE --file texts.csv --column review --json
    """
    classifier = Classifier.load(bundle, precision, provider, threads)
    pair = classifier.spec.pair
    if bool(texts) == bool(file):
        raise UsageError(
            "give texts as arguments or in a file, one of the two",
            "both" if file else "neither",
            'kdedge predict BUNDLE "a text"',
        )
    if file:
        rows: Iterable[tuple[str, ...]] = read_texts(
            file, (column, pair_column) if pair else (column,)
        )
    else:
        rows = _given(texts, pairs, pair)
    console = results()
    for batch in _batches(rows):
        answers = classifier.predict_batch(
            [row[0] for row in batch], [row[1] for row in batch] if pair else None
        )
        for row, answer in zip(batch, answers, strict=True):
            if as_json:
                click.echo(json.dumps(answer.to_json(), ensure_ascii=False))
            else:
                console.print(_line(row, answer), soft_wrap=True)


def _given(texts: tuple[str, ...], pairs: tuple[str, ...], pair: bool) -> list[tuple[str, ...]]:
    if pair and len(pairs) != len(texts):
        raise UsageError(
            "this classifier reads pairs: each TEXT needs a --pair",
            f"{len(texts)} texts, {len(pairs)} pairs",
            '"a text" --pair "its second text"',
        )
    if not pair and pairs:
        raise UsageError(
            "this classifier reads one text at a time", f"{len(pairs)} --pair", "leave --pair out"
        )
    return list(zip(texts, pairs, strict=True)) if pair else [(text,) for text in texts]


def _batches(rows: Iterable[tuple[str, ...]]) -> Iterator[list[tuple[str, ...]]]:
    iterator = iter(rows)
    while batch := list(islice(iterator, BATCH)):
        yield batch


def _line(row: tuple[str, ...], answer: Prediction) -> Text:
    """Labels and texts as they are: rich reads no markup or emoji names in them, the terminal no commands."""
    label = ", ".join(answer.label) if isinstance(answer.label, tuple) else answer.label
    shown = " | ".join(" ".join(text.split())[:60] for text in row)
    end = "  (truncated)" if answer.truncated else ""
    return Text.assemble(
        (_harmless(label or "(none)"), "bold"), _harmless(f"  {answer.score:.3f}  {shown}{end}")
    )


def _harmless(text: str) -> str:
    """Control characters, which begin a terminal's commands, as replacement characters."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", "\ufffd", text)


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--provider", default="cpu", show_default=True, help="Execution provider of ONNX Runtime."
)
@click.option("--json", "as_json", is_flag=True, help="End stdout with one JSON document.")
def verify(bundle: Path, provider: str, as_json: bool) -> None:
    """Check every file of BUNDLE against its hash and replay its golden answers here.

    Exit code 5 when a file is not the one that was written, 1 when an answer differs.

    \b
    Example: kdedge verify runs/quickstart/tinybert/bundle
    """
    opened = Bundle.open(bundle)
    replays = replay(opened, provider)
    if as_json:
        rows = [{**vars(one), "passed": one.passed} for one in replays]
        click.echo(
            json.dumps({"bundle": str(bundle), "files": len(opened.contents), "replays": rows})
        )
    else:
        click.echo(f"{len(opened.contents)} files are the ones that were written")
        for one in replays:
            figures = f"{one.max_abs_logit:.2g} (at most {one.tolerance:g}), of the nearest quarter {one.quarter_abs_logit:.2g} (at most {TYPICAL:g})"
            click.echo(
                f"{one.precision}: {one.texts} golden texts, largest logit difference {figures}"
            )
    for one in replays:
        if one.other_tokens:
            raise CheckFailed(
                "this machine tokenizes golden texts otherwise",
                f"{one.precision}: {one.other_tokens} of {one.texts}",
                "install the tokenizers version that kdedge asks for",
            )
        if not one.passed:
            raise CheckFailed(
                "this machine gives other answers than the one that made the bundle",
                f"{one.precision}: a logit differs by {one.max_abs_logit:.3g}, at most {one.tolerance:g} was expected; "
                f"of three in four texts one differs by {one.quarter_abs_logit:.3g} or more, at most {TYPICAL:g} was",
                "try --precision fp32 in your application, or another onnxruntime",
            )
