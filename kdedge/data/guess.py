"""Guess what a file of examples holds: delimiter, columns, kind of task, labels."""

from __future__ import annotations

import math
import re
import shlex
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdedge.errors import DataError, UsageError
from kdedge.io.delimited import find_delimiter
from kdedge.io.encoding import open_text
from kdedge.io.faults import shown
from kdedge.io.multi_hot import are_multi_hot
from kdedge.io.parquet import plain_columns, read_parquet
from kdedge.io.table import Table
from kdedge.io.tabular import TABLE_SUFFIXES, iter_rows, require_suffix
from kdedge.runtime.spec import BETWEEN_LABELS, Kind

MOST_CLASSES = 200
"""Whole numbers with more different values than this are scores, not classes."""

FEWEST_ROWS = 50
FEWEST_PER_LABEL = 5
"""With fewer rows, a label can be missing in a drawn validation or test split."""

SHOWN_LABELS = 6

FEWEST_WORDS = 4
"""A column whose values have fewer words on average holds names, dates or numbers. Words of digits
do not count. A Chinese name has up to three characters, and a date year, month and day."""

WITHOUT_SPACES = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")
"""Characters of scripts that write no spaces: Thai, Lao, Burmese, Khmer, Japanese, Chinese."""

TEXT_NAMES = "text sentence sentence1 review content comment question question1 message body"
PARTNERS = {
    "sentence1": "sentence2",
    "question1": "question2",
    "text1": "text2",
    "text_a": "text_b",
    "premise": "hypothesis",
    "question": "sentence",
}
"""Usual names of the two columns of a pair. The first one is the text, however short it is."""

PAIR_NAMES = "pair text2 text_b sentence2 question2 hypothesis text_pair second answer"
LABEL_NAMES = "label labels class category target sentiment topic intent rating stars score tag"


@dataclass(frozen=True)
class DataGuess:
    """What a file seems to hold.

    Attributes:
        delimiter: What separates the columns of a csv file; None for other files.
        columns: All columns.
        text: Column of the text.
        pair: Column of the second text, or None.
        label: Column of the label.
        unread_texts: Other columns whose values have at least `FEWEST_WORDS` words on average.
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
        text = _text_column(path, _without(values, pair, label))
    rest = _without(values, text, pair)
    if label is None:
        label = _label_column(path, rest, [name for name in columns if name != text])
    _check_label_differs(path, label, values[label])
    others = _without(rest, label)
    if pair is None:
        pair = _partner(text, list(others)) or _named(PAIR_NAMES, list(others))
    unread = [name for name, cells in _without(others, pair).items() if _are_texts(cells)]
    kind = kind or _kind(values[label])
    if not any(isinstance(cell, str) for cell in values[text]):
        raise DataError(
            f"{path}: the column of the text holds no texts",
            f"column {text!r}",
            "name another column with --text",
        )
    lengths = [_words(cell) for cell in values[text]]
    if pair is not None:
        lengths = [
            length + _words(cell) for length, cell in zip(lengths, values[pair], strict=True)
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
        labels=_label_counts(kind, values[label]),
        rows=len(table),
        words=lengths[int(0.99 * (len(lengths) - 1))],
    )


def _read_all(path: Path, encoding: str, named: list[str]) -> Table:
    """Read every column that can be a text or a label, and those that options name.

    Raises DataError if the file has no rows.
    """
    require_suffix(path, TABLE_SUFFIXES)
    if path.suffix.lower() == ".parquet":
        table = read_parquet(path, [*plain_columns(path), *named])
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


def _are_texts(cells: list[Any]) -> bool:
    """Return whether the values are texts of several words, not names, dates or numbers."""
    return statistics.fmean(_words_of_letters(cell) for cell in cells) >= FEWEST_WORDS


def _delimiter(path: Path, encoding: str) -> str | None:
    if path.suffix.lower() != ".csv":
        return "\t" if path.suffix.lower() == ".tsv" else None
    with open_text(path, encoding, newline="") as stream:
        return find_delimiter(stream.readline())


def _named(names: str, columns: Sequence[str]) -> str | None:
    """Return the column whose name comes first in `names`, ignoring letter case."""
    by_name = {column.casefold(): column for column in columns}
    for name in names.split():
        if name in by_name:
            return by_name[name]
    return None


def _words(cell: Any) -> int:
    """Count the words of a text; in scripts without spaces each character is one."""
    return len(_split(cell))


def _words_of_letters(cell: Any) -> int:
    return sum(any(map(str.isalpha, word)) for word in _split(cell))


def _split(cell: Any) -> list[str]:
    """Return the words of a text, with x for each character of a script without spaces."""
    return WITHOUT_SPACES.sub(" x ", cell).split() if isinstance(cell, str) else []


def _partner(text: str, columns: Sequence[str]) -> str | None:
    """Return the column of the second text if both columns have usual names of a pair."""
    second = PARTNERS.get(text.casefold())
    return _named(second, columns) if second else None


def _text_column(path: Path, values: dict[str, list[Any]]) -> str:
    """Return the text column: the first of a pair, a usual name, or that of the longest strings."""
    strings = {}
    for name, cells in values.items():
        lengths = [len(cell) for cell in cells if isinstance(cell, str)]
        if len(lengths) > len(cells) / 2:
            strings[name] = statistics.fmean(lengths)
    if not strings:
        raise DataError(
            f"{path}: no column holds texts",
            f"columns: {', '.join(map(shown, values)) or 'none'}",
            "write the texts as strings in a column of their own",
        )
    for first in PARTNERS:
        column = _named(first, list(strings))
        if column is not None and _partner(column, list(strings)):
            return column
    return _named(TEXT_NAMES, list(strings)) or max(strings, key=lambda name: strings[name])


def _label_column(path: Path, values: dict[str, list[Any]], others: list[str]) -> str:
    """Return the label column: a usual name, else the one with fewest different values.

    Args:
        path: The file.
        values: The columns that can be the label.
        others: All columns but that of the text, for the message.
    """
    distinct = {}
    for name, cells in values.items():
        count = len({str(cell) for cell in cells})
        if count > 1:
            distinct[name] = count
    usual = _named(LABEL_NAMES, list(distinct)) or _named(LABEL_NAMES, list(values))
    if usual is not None:
        return usual
    if not distinct:
        raise DataError(
            f"{path}: no column could be the label",
            f"columns besides the text: {', '.join(map(shown, others)) or 'none'}",
            "give every row a name or a number as its label, and use at least two labels",
        )
    return min(distinct, key=lambda name: distinct[name])


def _check_label_differs(path: Path, label: str, cells: list[Any]) -> None:
    """Raise DataError if all rows have the same label: then there is nothing to learn."""
    if len({str(cell) for cell in cells}) > 1:
        return
    if _is_empty(cells[0]):
        raise DataError(
            f"{path}: the column of the label is empty",
            f"column {shown(label)} has no value in {len(cells)} rows",
            "give every row a label, or name another column with --label",
        )
    raise DataError(
        f"{path}: all rows have the same label",
        f"column {shown(label)} is {shown(cells[0])} in every row",
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
    for column in guess.unread_texts:
        remedy = f"to read it as the second text of a pair, pass --pair {shlex.quote(column)}"
        if guess.pair is not None:
            remedy = "a recipe reads at most two columns: join it to one of them in the file"
        lines.append(f"the column {column} holds texts too, but is not read; {remedy}")
    return lines


def _kind(cells: list[Any]) -> Kind:
    """Return the kind of task; missing labels do not count, as they are reported later."""
    if any(isinstance(cell, list) for cell in cells):
        return "multilabel"
    if any(isinstance(cell, str) and BETWEEN_LABELS in cell for cell in cells):
        return "multilabel"
    numbers = [_number(cell) for cell in cells if not _is_empty(cell)]
    if any(number is None for number in numbers):
        return "classification"
    finite = {number for number in numbers if number is not None and math.isfinite(number)}
    has_fractions = any(number % 1 for number in finite)
    return "regression" if has_fractions or len(finite) > MOST_CLASSES else "classification"


def _is_empty(cell: Any) -> bool:
    return cell is None or (isinstance(cell, str) and not cell.strip())


def _number(cell: Any) -> float | None:
    try:
        return float(cell)
    except (TypeError, ValueError):
        return None


def _label_counts(kind: Kind, cells: list[Any]) -> tuple[tuple[str, int], ...]:
    if kind == "regression":
        return ()
    counts: Counter[str] = Counter()
    if isinstance(cells[0], list) and are_multi_hot(cells, len(cells[0])):
        for position, rows in enumerate(zip(*cells, strict=True)):
            counts[str(position)] = int(sum(rows))
        return tuple(counts.most_common())
    for cell in cells:
        if isinstance(cell, bool):  # As in training: true is the label 1.
            counts[str(int(cell))] += 1
        elif isinstance(cell, list):
            counts.update(str(item) for item in cell)
        elif kind == "multilabel":
            counts.update(part.strip() for part in str(cell).split(BETWEEN_LABELS) if part.strip())
        else:
            counts[str(cell)] += 1
    return tuple(counts.most_common())
