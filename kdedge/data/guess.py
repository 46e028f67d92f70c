"""Guess what a file of examples holds: delimiter, columns, kind of task, labels."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdedge.data.guess_columns import (
    PAIR_NAMES,
    are_texts,
    count_words,
    find_column,
    find_label_column,
    find_partner,
    find_text_column,
)
from kdedge.data.label_cells import as_number, is_missing, labels_of_cell
from kdedge.errors import DataError, UsageError
from kdedge.io.delimited import find_delimiter
from kdedge.io.encoding import open_text
from kdedge.io.faults import shown
from kdedge.io.multi_hot import are_multi_hot
from kdedge.io.parquet import read_plain_parquet
from kdedge.io.table import Table
from kdedge.io.tabular import TABLE_SUFFIXES, iter_rows, require_suffix
from kdedge.runtime.spec import BETWEEN_LABELS, Kind

MOST_CLASSES = 200
"""Whole numbers with more different values than this are scores, not classes."""

FEWEST_ROWS = 50
FEWEST_PER_LABEL = 5
"""With fewer rows, a label can be missing in a drawn validation or test split."""

SHOWN_LABELS = 6


@dataclass(frozen=True)
class DataGuess:
    """What a file seems to hold.

    Attributes:
        delimiter: What separates the columns of a csv file; None for other files.
        columns: All columns.
        text: Column of the text.
        pair: Column of the second text, or None.
        label: Column of the label.
        unread_texts: Other columns of texts, as `are_texts` finds them.
        kind: Kind of the task.
        labels: Different labels with their counts, the most frequent first; () for scores.
        rows: Number of rows.
        words: Words of a text, or of both texts of a pair, that is longer than 99 % of the others.
    """

    delimiter: str | None
    columns: tuple[str, ...]
    text: str
    pair: str | None
    label: str
    unread_texts: tuple[str, ...]
    kind: Kind
    labels: tuple[tuple[str, int], ...]
    rows: int
    words: int


def guess_data(
    path: Path,
    encoding: str = "utf-8",
    *,
    text: str | None = None,
    pair: str | None = None,
    label: str | None = None,
    kind: Kind | None = None,
) -> DataGuess:
    """Read a csv, tsv, jsonl or parquet file and guess what it means.

    Args:
        path: The file.
        encoding: Its encoding, as in a recipe.
        text: Column of the text, if it is known.
        pair: Column of the second text, if it is known.
        label: Column of the label, if it is known.
        kind: Kind of the task, if it is known.

    Raises:
        DataError: If the file has no rows, no column that could be the text or the label, no texts
            in the column of the text, or the same label in every row.
        UsageError: If the file type is unknown, the file cannot be read, or a column that was
            named does not exist or was named twice.

    Example:
        >>> guess_data(Path("reviews.csv")).label
        'stars'
    """
    if path.suffix.lower() == ".txt":
        raise UsageError(
            "a txt file has no labels", str(path), "give a csv, tsv, jsonl or parquet file"
        )
    named = {"--text": text, "--pair": pair, "--label": label}
    table = _read_all(path, encoding, [name for name in named.values() if name is not None])
    columns = table.names
    values = {name: list(cells) for name, cells in table.columns.items()}
    _check_named(table, named)
    if text is None:
        unreadable = [name for name in columns if name not in values]
        text = find_text_column(path, _without(values, pair, label), unreadable)
    rest = _without(values, text, pair)
    if label is None:
        label = find_label_column(path, rest, [name for name in columns if name != text])
    given = [cell for cell in values[label] if not is_missing(cell)]
    kind = kind or _kind(given)
    # An empty multilabel cell is a text without any of the labels.
    _check_label_differs(path, label, values[label] if kind == "multilabel" else given)
    others = _without(rest, label)
    if pair is None:
        pair = find_partner(text, list(others)) or find_column(PAIR_NAMES, list(others))
    unread = [name for name, cells in _without(others, pair).items() if are_texts(cells)]
    if not any(isinstance(cell, str) for cell in values[text]):
        raise DataError(
            f"{path}: the column of the text holds no texts",
            f"column {text!r}",
            "name another column with --text",
        )
    lengths = [count_words(cell) for cell in values[text]]
    if pair is not None:
        lengths = [
            length + count_words(cell) for length, cell in zip(lengths, values[pair], strict=True)
        ]
    lengths.sort()
    return DataGuess(
        delimiter=_delimiter(path, encoding),
        columns=columns,
        text=text,
        pair=pair,
        label=label,
        unread_texts=tuple(unread),
        kind=kind,
        labels=_label_counts(kind, given),
        rows=len(table),
        words=lengths[int(0.99 * (len(lengths) - 1))],
    )


def _read_all(path: Path, encoding: str, named: list[str]) -> Table:
    """Read every column that can be a text or a label, and those that options name.

    Raises DataError if the file has no rows.
    """
    require_suffix(path, TABLE_SUFFIXES)
    if path.suffix.lower() == ".parquet":
        table = read_plain_parquet(path, named)
    else:
        rows = [row.cells for row in iter_rows(path, (), encoding)]
        columns = tuple(dict.fromkeys(name for row in rows for name in row))
        values = {name: [row.get(name) for row in rows] for name in columns}
        table = Table(str(path), values, columns, range(len(rows)))
    if not len(table):
        raise DataError(f"{path}: no rows", "0 rows", "give a file with texts and labels")
    return table


def _check_named(table: Table, columns: dict[str, str | None]) -> None:
    """Raise UsageError if a column that an option names does not exist or has two options."""
    named = {option: column for option, column in columns.items() if column is not None}
    for option, column in named.items():
        table.column(column, option)
    if len(set(named.values())) < len(named):
        raise UsageError(
            "a column is named twice",
            ", ".join(f"{option} {shown(column)}" for option, column in named.items()),
            "name a column of its own with each option",
        )


def _without(values: dict[str, list[Any]], *names: str | None) -> dict[str, list[Any]]:
    return {name: cells for name, cells in values.items() if name not in names}


def _delimiter(path: Path, encoding: str) -> str | None:
    if path.suffix.lower() != ".csv":
        return "\t" if path.suffix.lower() == ".tsv" else None
    with open_text(path, encoding, newline="") as stream:
        return find_delimiter(stream.readline())


def _check_label_differs(path: Path, label: str, cells: list[Any]) -> None:
    """Raise DataError if fewer than two labels are given: then there is nothing to learn."""
    if len({str(cell) for cell in cells}) > 1:
        return
    if all(map(is_missing, cells)):
        raise DataError(
            f"{path}: the column of the label is empty",
            f"column {shown(label)}",
            "give every row a label, or name another column with --label",
        )
    raise DataError(
        f"{path}: all rows have the same label",
        f"column {shown(label)} has no value but {shown(cells[0])}",
        "add rows with another label, or name the column of the label with --label",
    )


def guess_warnings(guess: DataGuess) -> list[str]:
    """Return warnings: very few rows, labels with very few, columns of texts that are not read.

    Example:
        >>> guess_warnings(guess_data(Path("few.csv")))
        ['12 rows are very few: ...']
    """
    lines = []
    if guess.rows < FEWEST_ROWS:
        lines.append(
            f"{guess.rows} rows are very few: with fewer than {FEWEST_ROWS}, differences between "
            "models are chance; label more texts, and add unlabelled ones ([augment.pool])"
        )
    rare = [f"{name} ({count})" for name, count in guess.labels if count < FEWEST_PER_LABEL]
    if rare:
        more = len(rare) - SHOWN_LABELS
        listed = ", ".join(rare[:SHOWN_LABELS]) + (f" and {more} more" if more > 0 else "")
        lines.append(
            f"labels with fewer than {FEWEST_PER_LABEL} rows: {listed}; a student cannot learn "
            "them, and a split may lack them: add rows, or merge or remove these labels"
        )
    fractions = sum((as_number(name) or 0) % 1 > 0 for name, _ in guess.labels)
    if guess.kind == "classification" and fractions > len(guess.labels) / 2:
        lines.append(
            f"{fractions} of {len(guess.labels)} labels are numbers with fractions; if they are "
            "scores, remove the rows with other labels, or fill them in"
        )
    for column in guess.unread_texts:
        remedy = f"to read it as the second text of a pair, pass --pair {shlex.quote(column)}"
        if guess.pair is not None:
            remedy = "a recipe reads at most two columns: join it to one of them in the file"
        lines.append(f"the column {column} holds texts too, but is not read; {remedy}")
    return lines


def _kind(cells: list[Any]) -> Kind:
    """Return the kind of task of the labels that are given; others are reported later."""
    if any(isinstance(cell, list) for cell in cells):
        return "multilabel"
    if any(isinstance(cell, str) and BETWEEN_LABELS in cell for cell in cells):
        return "multilabel"
    numbers = [as_number(cell) for cell in cells]
    if any(number is None for number in numbers):
        return "classification"
    finite = {number for number in numbers if number is not None and math.isfinite(number)}
    has_fractions = any(number % 1 for number in finite)
    return "regression" if has_fractions or len(finite) > MOST_CLASSES else "classification"


def _label_counts(kind: Kind, cells: list[Any]) -> tuple[tuple[str, int], ...]:
    if kind == "regression":
        return ()
    counts: Counter[str] = Counter()
    if isinstance(cells[0], list) and are_multi_hot(cells, len(cells[0])):
        for position, rows in enumerate(zip(*cells, strict=True)):
            counts[str(position)] = int(sum(rows))
        return tuple(counts.most_common())
    for cell in cells:
        for label in labels_of_cell(kind, cell):
            # As in training: true is the label 1.
            counts[str(int(label) if isinstance(label, bool) else label)] += 1
    return tuple(counts.most_common())
