"""Find the line of a TOML file on which a key stands, for messages.

This reads the usual form of a recipe: table headers, and one key at the start of a line. A key
inside an inline table gets the line of that table.
"""

from __future__ import annotations

import re
from typing import Any

HEADER = re.compile(r"^\s*(\[\[?)\s*([^\[\]#]+?)\s*\]\]?\s*(#.*)?$")
KEY = re.compile(r"""^\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=""")
WORD = re.compile(r"""[\w-]+|"[^"]*"|'[^']*'""")

Path = tuple[str | int, ...]
"""Keys and positions in lists, such as `("student", 1, "fit", "epochs")`."""


def key_lines(text: str) -> dict[Path, int]:
    """Return the line, counted from 1, of every table and key of a TOML document.

    Example:
        >>> key_lines("[data]\\ntrain = 'a.csv'")
        {('data',): 1, ('data', 'train'): 2}
    """
    lines: dict[Path, int] = {}
    counts: dict[Path, int] = {}
    table: Path = ()
    for number, line in enumerate(text.splitlines(), 1):
        header = HEADER.match(line)
        key = KEY.match(line)
        if header:
            table = _resolved(_words(header[2]), counts, is_list=header[1] == "[[")
            lines.setdefault(table, number)
        elif key:
            path = table
            for word in _words(key[1]):
                path = (*path, word)
                lines.setdefault(path, number)
    return lines


def _words(dotted: str) -> list[str]:
    return [word.strip("\"'") for word in WORD.findall(dotted)]


def _resolved(words: list[str], counts: dict[Path, int], *, is_list: bool) -> Path:
    """Return the path of a table header; `[student.fit]` refers to the last `[[student]]`."""
    path: Path = ()
    for depth, word in enumerate(words, 1):
        path = (*path, word)
        if is_list and depth == len(words):
            counts[path] = counts.get(path, 0) + 1
        if path in counts:
            path = (*path, counts[path] - 1)
    return path


def document_path(document: Any, location: tuple[Any, ...]) -> Path:
    """Return the part of a pydantic location that exists in the document."""
    path: Path = ()
    value = document
    for part in location:
        is_position = isinstance(value, list) and isinstance(part, int) and part < len(value)
        if is_position or (isinstance(value, dict) and part in value):
            value = value[part]
            path = (*path, part)
    return path


def value_at(document: Any, path: Path) -> Any:
    """Return the value at a path, or None if there is none."""
    for part in path:
        try:
            document = document[part]
        except (KeyError, IndexError, TypeError):
            return None
    return document
