"""What the tokenizer of a kit knows about characters, as the library `tokenizers` sees them.

The tables come from `tokenizers` itself, because its parts follow different versions of Unicode.
This command writes them again:

    python -m kdedge.export.kits.unicode_tables
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from tokenizers.normalizers import NFD, BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

TABLES_FILE = Path(__file__).with_name("unicode.json")

REMOVED = 1
"""clean_text removes the character."""

BLANK = 2
"""clean_text replaces the character with a space."""

SEPARATOR = 4
"""The character ends a word and belongs to none."""

PUNCTUATION = 8
"""The character is a word of its own."""

MARK = 16
"""strip_accents removes the character."""

IDEOGRAPH = 32
"""handle_chinese_chars puts spaces around the character."""

CLASS_SHIFT = 8
"""The canonical combining class stands above the flags."""

HANGUL = range(0xAC00, 0xD7A4)
"""Syllables that arithmetic decomposes; they are not in the tables."""

Mapping = list[list[int]]
"""Rows of a code point and what replaces it, ascending."""


@dataclass(frozen=True)
class UnicodeTables:
    """Properties and replacements of code points.

    Attributes:
        properties: Rows (first, value): `value` holds from `first` to the next row.
        decompositions: Canonical decompositions.
        lowercase: Lower-case forms.
    """

    properties: list[list[int]]
    decompositions: Mapping
    lowercase: Mapping

    @classmethod
    @cache
    def load(cls) -> UnicodeTables:
        """Read the tables that come with kdedge."""
        return cls(**json.loads(TABLES_FILE.read_text(encoding="utf-8")))

    @classmethod
    def measure(cls) -> UnicodeTables:
        """Ask the installed `tokenizers` about every code point; takes about 20 seconds."""
        return cls(
            properties=_runs(_Properties()),
            decompositions=_replacements(NFD()),
            lowercase=_replacements(_bert_normalizer(lowercase=True)),
        )

    def to_json(self) -> str:
        """Return a JSON document with one row of a table per line."""
        tables = []
        for name, rows in asdict(self).items():
            lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
            tables.append(f'"{name}": [\n{lines}\n]')
        return "{\n" + ",\n".join(tables) + "\n}\n"


class _Properties:
    """The properties of one code point after the other."""

    def __init__(self) -> None:
        self.clean = _bert_normalizer(clean_text=True)
        self.strip = _bert_normalizer(strip_accents=True)
        self.chinese = _bert_normalizer(handle_chinese_chars=True)
        self.words = BertPreTokenizer()
        self.classes = _CombiningClasses()

    def of(self, character: str) -> int:
        value = self.classes.of(character) << CLASS_SHIFT
        cleaned = self.clean.normalize_str(character)
        if cleaned == "":
            value |= REMOVED
        elif cleaned == " ":
            value |= BLANK
        words = len(self.words.pre_tokenize_str(f"a{character}a"))
        if words == 2:
            value |= SEPARATOR
        elif words == 3:
            value |= PUNCTUATION
        if self.strip.normalize_str(character) == "":
            value |= MARK
        if self.chinese.normalize_str(character) == f" {character} ":
            value |= IDEOGRAPH
        return value


class _CombiningClasses:
    """Finds combining classes from the order in which NFD sorts two characters."""

    HIGHEST = "\u0345"
    """The only character of class 240, above all other classes."""

    LOWEST = "\u0334"
    """A character of class 1."""

    def __init__(self) -> None:
        self.nfd = NFD()
        self.examples: dict[int, str] = {}
        for character in _characters():
            number = unicodedata.combining(character)
            if number and self._is_mark(character):
                self.examples.setdefault(number, character)
        self.ascending = sorted(self.examples)

    def of(self, character: str) -> int:
        if not self._is_mark(character):
            return 0
        for number in self.ascending:
            if not self._swaps(character, self.examples[number]):
                return number
        raise AssertionError(f"U+{ord(character):04X} has an unknown combining class")

    def _is_mark(self, character: str) -> bool:
        """Return whether NFD moves the character, so that its class is not 0."""
        return self._swaps(self.HIGHEST, character) or self._swaps(character, self.LOWEST)

    def _swaps(self, first: str, second: str) -> bool:
        """Return whether NFD sorts the second character before the first."""
        return bool(self.nfd.normalize_str(first + second) == second + first != first + second)


def _bert_normalizer(**enabled: bool) -> BertNormalizer:
    """Return a normalizer that does only what is enabled."""
    disabled = {
        "clean_text": False,
        "handle_chinese_chars": False,
        "strip_accents": False,
        "lowercase": False,
    }
    return BertNormalizer(**disabled | enabled)


def _characters() -> Iterator[str]:
    """Yield every character except half surrogates."""
    for code in range(0x110000):
        if not 0xD800 <= code < 0xE000:
            yield chr(code)


def _runs(properties: _Properties) -> list[list[int]]:
    rows: list[list[int]] = []
    for character in _characters():
        value = properties.of(character)
        if not rows or rows[-1][1] != value:
            rows.append([ord(character), value])
    return rows


def _replacements(normalizer: NFD | BertNormalizer) -> Mapping:
    rows = []
    for character in _characters():
        replaced = normalizer.normalize_str(character)
        if replaced != character and ord(character) not in HANGUL:
            rows.append([ord(character), *map(ord, replaced)])
    return rows


if __name__ == "__main__":
    TABLES_FILE.write_text(UnicodeTables.measure().to_json(), encoding="utf-8")
