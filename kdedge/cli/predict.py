"""`kdedge predict`: classify texts with a bundle."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.text import Text

from kdedge.cli.console import print_json, print_message, results
from kdedge.cli.options import ProviderOptions, digest_option, option_group, provider_options
from kdedge.errors import DataError, UsageError
from kdedge.io.tabular import stream_texts
from kdedge.printable import printable
from kdedge.wording import shortened

if TYPE_CHECKING:
    from kdedge.runtime.prediction import Prediction

BATCH_SIZE = 32
SHOWN_CHARACTERS = 60
"""Length of a text in the output for people."""

Row = tuple[str, ...]
"""One text, or two texts for classifiers of pairs."""


@dataclass(frozen=True)
class TextArguments:
    """The texts to classify: given as arguments, or the columns of a file."""

    texts: tuple[str, ...]
    pairs: tuple[str, ...]
    file: Path | None
    column: str
    pair_column: str

    def rows(self, *, pair: bool) -> Iterable[Row]:
        """Return the texts, or read them from the file or stdin as they are needed."""
        if self.pairs and (self.file or self._reads_stdin):
            raise UsageError(
                "--pair goes with texts that are arguments",
                f"{len(self.pairs)} --pair, and texts from {self.file or 'stdin'}",
                "put the second text into the file, or behind a tab on its line",
            )
        if self._reads_stdin:
            return stdin_rows(pair=pair)
        if bool(self.texts) == bool(self.file):
            raise UsageError(
                "give texts either as arguments or in a file",
                "both" if self.file else "neither",
                'kdedge predict BUNDLE "a text", or pipe one text per line into the command',
            )
        if self.file and pair:
            return stream_texts(self.file, (self.column, self.pair_column))
        if self.file:
            return stream_texts(self.file, (self.column,))
        return self._paired_texts() if pair else self._single_texts()

    @property
    def _reads_stdin(self) -> bool:
        """Whether the text or the file is `-`, or there is none and another command writes here."""
        if self.texts == ("-",) or str(self.file) == "-":
            return True
        return not self.texts and not self.file and not self.pairs and _is_piped()

    def _paired_texts(self) -> list[Row]:
        if len(self.pairs) != len(self.texts):
            raise UsageError(
                "this classifier reads pairs: each TEXT needs a --pair",
                f"{len(self.texts)} texts, {len(self.pairs)} pairs",
                '"a text" --pair "its second text"',
            )
        return list(zip(self.texts, self.pairs, strict=True))

    def _single_texts(self) -> list[Row]:
        if self.pairs:
            raise UsageError(
                "this classifier reads one text at a time",
                f"{len(self.pairs)} --pair",
                "leave --pair out",
            )
        return [(text,) for text in self.texts]


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@option_group(
    "arguments",
    TextArguments,
    click.argument("texts", nargs=-1),
    click.option(
        "--pair",
        "pairs",
        multiple=True,
        help="Second text of each TEXT, for classifiers of pairs; repeatable.",
    ),
    click.option(
        "--file",
        type=click.Path(path_type=Path),
        help="Read the texts from a txt (one per line), csv, tsv or jsonl file.",
    ),
    click.option(
        "--column", default="text", show_default=True, help="Column of the text in the file."
    ),
    click.option(
        "--pair-column",
        default="pair",
        show_default=True,
        help="Column of the second text, for classifiers of pairs.",
    ),
)
@click.option(
    "--precision", default="auto", show_default=True, help="fp32, int8, fp16, portable, or auto."
)
@provider_options
@click.option(
    "--threads", type=click.IntRange(min=1), help="Threads for one text. Default: all cores."
)
@digest_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON line per text.")
def predict(
    bundle: Path,
    arguments: TextArguments,
    precision: str,
    execution: ProviderOptions,
    threads: int | None,
    digest: str | None,
    as_json: bool,
) -> None:
    """Classify TEXTS, the texts of a file, or the lines of stdin, with BUNDLE.

    Stdin is read if TEXTS is "-", or if there is none and the command stands in a pipe. In a
    line of stdin, a tab separates the two texts of a pair. Every line of stdin gets one line of
    output, a blank line too: it is an empty text, or a pair of them. With --json every line has
    the text and its number, counted from 1.

    \b
    Example: kdedge predict runs/quickstart/tinybert/bundle "Shares fell after the bank's warning"
    Example: cat texts.txt | kdedge predict BUNDLE --json
    Example: kdedge predict BUNDLE --file texts.csv --column review --json
    """
    from kdedge.runtime.classifier import Classifier

    classifier = Classifier.load(
        bundle, precision, execution.provider, threads, digest, execution.fallback
    )
    pair = classifier.spec.pair
    console = results()
    number = empty = 0
    for batch in _batches(arguments.rows(pair=pair)):
        texts = [row[0] for row in batch]
        pairs = [row[1] for row in batch] if pair else None
        predictions = classifier.predict_batch(texts, pairs)
        for row, prediction in zip(batch, predictions, strict=True):
            number += 1
            empty += not any(text.strip() for text in row)
            if as_json:
                names = dict(zip(("text", "pair"), row, strict=False))
                print_json({"id": number, **names, **prediction.to_json()})
            else:
                console.print(_line(row, prediction), soft_wrap=True)
    if empty:
        subject = "1 text is" if empty == 1 else f"{empty} texts are"
        print_message(f"warning: {subject} empty; an answer to nothing means nothing")


def _is_piped() -> bool:
    """Return whether stdin is a pipe or a file: a terminal would wait for someone to type."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError, AttributeError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


def stdin_rows(*, pair: bool) -> Iterator[Row]:
    """Read one text per line from stdin, or two with a tab between them.

    A blank line is an empty text, or a pair of them, so that input and output have equal lines.

    Raises DataError if a line is not UTF-8, or has no second text.
    """
    for number, content in enumerate(sys.stdin.buffer, 1):
        where = f"stdin:{number}"
        try:
            # The first line may begin with a byte order mark.
            line = content.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise DataError(f"{where}: not UTF-8", error.reason, "convert the texts") from error
        row = tuple(line.split("\t")) if pair else (line,)
        if pair and not line.strip():
            row = ("", "")
        if len(row) != (2 if pair else 1):
            raise DataError(
                f"{where}: this classifier reads pairs of texts",
                f"{len(row)} texts",
                "separate the two texts of a line with a tab",
            )
        yield row


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    iterator = iter(rows)
    while batch := list(islice(iterator, BATCH_SIZE)):
        yield batch


def _line(row: Row, prediction: Prediction) -> Text:
    """Format a prediction; labels and texts are not read as rich markup."""
    label = prediction.label
    if isinstance(label, tuple):
        label = ", ".join(label)
    shown = " | ".join(shortened(" ".join(text.split()), SHOWN_CHARACTERS) for text in row)
    end = "  (truncated)" if prediction.truncated else ""
    return Text.assemble(
        (printable(label or "(none)"), "bold"),
        printable(f"  {prediction.score:.3f}  {shown}{end}"),
    )
