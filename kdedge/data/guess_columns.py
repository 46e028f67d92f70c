"""Guess which columns of a file hold the text, the second text and the label."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdedge.data.label_cells import is_missing
from kdedge.errors import DataError
from kdedge.io.faults import shown

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


def are_texts(cells: list[Any]) -> bool:
    """Return whether the values are texts of several words, not names, dates or numbers."""
    return statistics.fmean(_words_of_letters(cell) for cell in cells) >= FEWEST_WORDS


def find_column(names: str, columns: Sequence[str]) -> str | None:
    """Return the column whose name comes first in `names`, ignoring letter case."""
    by_name = {column.casefold(): column for column in columns}
    for name in names.split():
        if name in by_name:
            return by_name[name]
    return None


def count_words(cell: Any) -> int:
    """Count the words of a text; in scripts without spaces each character is one."""
    return len(_split(cell))


def _words_of_letters(cell: Any) -> int:
    return sum(any(map(str.isalpha, word)) for word in _split(cell))


def _split(cell: Any) -> list[str]:
    """Return the words of a text, with x for each character of a script without spaces."""
    return WITHOUT_SPACES.sub(" x ", cell).split() if isinstance(cell, str) else []


def find_partner(text: str, columns: Sequence[str]) -> str | None:
    """Return the column of the second text if both columns have usual names of a pair."""
    second = PARTNERS.get(text.casefold())
    return find_column(second, columns) if second else None


def find_text_column(path: Path, values: dict[str, list[Any]], unreadable: Sequence[str]) -> str:
    """Return the text column: the first of a pair, a usual name, or that of the longest strings.

    Args:
        path: The file.
        values: The columns that can be the text.
        unreadable: The columns that hold bytes, dates or records.

    Raises:
        DataError: If no column holds strings in most of its rows, or the only one with a usual name
            of texts is unreadable.
    """
    strings = {}
    for name, cells in values.items():
        lengths = [len(cell) for cell in cells if isinstance(cell, str)]
        if len(lengths) > len(cells) / 2:
            strings[name] = statistics.fmean(lengths)
    if not strings:
        raise DataError(
            f"{path}: no column holds texts",
            f"columns: {', '.join(map(shown, [*values, *unreadable])) or 'none'}",
            "write the texts as strings in a column of their own",
        )
    for first in PARTNERS:
        column = find_column(first, list(strings))
        if column is not None and find_partner(column, list(strings)):
            return column
    usual = find_column(TEXT_NAMES, list(strings))
    if usual is not None:
        return usual
    without_strings = find_column(TEXT_NAMES, unreadable)
    if without_strings is not None:
        raise DataError(
            f"{path}: the column {shown(without_strings)} holds no texts",
            "its values are bytes, dates or records",
            "write the texts as strings, or name another column with --text",
        )
    return max(strings, key=lambda name: strings[name])


def find_label_column(path: Path, values: dict[str, list[Any]], others: list[str]) -> str:
    """Return the label column: a usual name, else the one with fewest different values.

    Columns that have values in more than half of the rows go first.

    Args:
        path: The file.
        values: The columns that can be the label.
        others: All columns but that of the text, for the message.

    Raises:
        DataError: If there is no such column.
    """
    distinct, often_given = {}, {}
    for name, cells in values.items():
        given = [str(cell) for cell in cells if not is_missing(cell)]
        if len(set(given)) > 1:
            distinct[name] = len(set(given))
            if len(given) > len(cells) / 2:
                often_given[name] = len(set(given))
    usual = find_column(LABEL_NAMES, list(distinct)) or find_column(LABEL_NAMES, list(values))
    if usual is not None:
        return usual
    if not distinct:
        raise DataError(
            f"{path}: no column could be the label",
            f"columns besides the text: {', '.join(map(shown, others)) or 'none'}",
            "give every row a name or a number as its label, and use at least two labels; "
            "dates and bytes are no labels",
        )
    return min(often_given or distinct, key=lambda name: distinct[name])
