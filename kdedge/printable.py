"""Make text safe for a terminal: control characters are written as visible escapes."""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

ESCAPED_CATEGORIES = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode categories: controls, invisible formats, half surrogate pairs, line separators."""

JOINERS = "\u200c\u200d"
"""Invisible characters that Persian words and emoji need."""


def printable(text: str) -> str:
    r"""Write control characters, such as ESC or U+202E, as Python escapes.

    Raw ones could clear the screen, hide text or reverse its order. Line ends are escaped too.

    Example:
        >>> printable("a\x1b[2Jb")
        'a\\x1b[2Jb'
    """
    if text.isprintable():
        return text
    return "".join(_escaped(char) if _is_control(char) else char for char in text)


def printable_lines(text: str) -> str:
    """Do the same for text of several lines, whose line ends stay."""
    return "\n".join(printable(line) for line in text.split("\n"))


def json_line(document: Any) -> str:
    """Write a document as one line of JSON; control characters are escapes of JSON."""
    line = json.dumps(document, ensure_ascii=False)
    if line.isprintable():
        return line
    return re.sub(r"[^ -~]", _json_escape, line)


def _is_control(char: str) -> bool:
    return unicodedata.category(char) in ESCAPED_CATEGORIES and char not in JOINERS


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def _json_escape(match: re.Match[str]) -> str:
    char = match.group()
    return json.dumps(char)[1:-1] if _is_control(char) else char
