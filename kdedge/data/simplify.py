"""Reduce a text to its letters and digits, to compare it with others."""

from __future__ import annotations

import re
import unicodedata

from kdedge.data.shares import normalised

NOT_ASCII = re.compile(r"[^\x00-\x7f]+")
PUNCTUATION = re.compile(r"[\W_]+")
UNSPACED = (
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    "\U00020000-\U0003ffff]"
)
"""A character of Thai, Lao, Burmese, Khmer, kana or Chinese: scripts without spaces."""

UNSPACED_CHARACTER = re.compile(UNSPACED)
MEANINGLESS_SPACE = re.compile(f"(?<={UNSPACED}) | (?={UNSPACED})")
INVISIBLE_CATEGORIES = {"Mn", "Cf"}
"""Unicode categories of accents and invisible characters, which uncased tokenizers ignore."""


def simplify(text: str) -> str:
    """Keep letters and digits only, without case, accents and width variants.

    One space separates words. No space is next to a character of a script without spaces.
    """
    if not text.isascii():
        text = NOT_ASCII.sub(_without_accents, text)
    words = PUNCTUATION.sub(" ", normalised(text)).strip()
    return MEANINGLESS_SPACE.sub("", words)


def _without_accents(match: re.Match[str]) -> str:
    """Decompose characters and leave out accents and invisible ones.

    Only non-ASCII runs are decomposed: decomposition never reorders across an ASCII character.
    """
    decomposed = unicodedata.normalize("NFKD", match[0])
    return "".join(
        character
        for character in decomposed
        if unicodedata.category(character) not in INVISIBLE_CATEGORIES
    )
