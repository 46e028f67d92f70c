"""A regular expression matcher that counts its steps, to compare the work on texts of two lengths.

It backtracks as `re` does, with nothing left out. It knows the constructs that kdedge's patterns
have, and fails on any other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from re import _constants as codes  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

CATEGORIES = {
    codes.CATEGORY_SPACE: str.isspace,
    codes.CATEGORY_DIGIT: str.isdecimal,
    codes.CATEGORY_WORD: lambda char: char.isalnum() or char == "_",
}


class CountingMatcher:
    """Finds the spans that a pattern matches, and counts comparisons and backtracks in `steps`."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self.tree = list(parser.parse(pattern.pattern, pattern.flags))
        self.ignore_case = bool(pattern.flags & re.IGNORECASE)
        self.steps = 0
        self.text = ""

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Return the spans of all matches, as `re.finditer` does."""
        self.text = text
        found = []
        position = 0
        while position < len(text):
            end = next(self._sequence(self.tree, position), None)
            if end is None:
                position += 1
            else:
                found.append((position, end))
                position = end
        return found

    def _sequence(self, items: list[Any], position: int) -> Iterator[int]:
        if not items:
            yield position
            return
        for end in self._ends(items[0], position):
            yield from self._sequence(items[1:], end)

    def _ends(self, item: Any, position: int) -> Iterator[int]:
        """Yield where one item can end, in the order in which `re` tries."""
        code, value = item
        self.steps += 1
        if code == codes.MAX_REPEAT:
            low, high, body = value
            yield from self._repeat(low, high, list(body), position)
        elif code == codes.BRANCH:
            for branch in value[1]:
                yield from self._sequence(list(branch), position)
        elif code == codes.SUBPATTERN:
            yield from self._sequence(list(value[3]), position)
        elif code == codes.ASSERT_NOT:
            direction, body = value
            assert direction == -1 and len(body) == 1, "one character behind"
            if position == 0 or not self._matches(body[0], self.text[position - 1]):
                yield position
        elif code == codes.AT:
            assert value == codes.AT_BOUNDARY
            if self._is_word(position - 1) != self._is_word(position):
                yield position
        elif position < len(self.text) and self._matches(item, self.text[position]):
            yield position + 1

    def _repeat(self, low: int, high: int, body: list[Any], position: int) -> Iterator[int]:
        if len(body) == 1 and body[0][0] in (codes.LITERAL, codes.IN):
            end = position
            while end < len(self.text) and end - position < high:
                self.steps += 1
                if not self._matches(body[0], self.text[end]):
                    break
                end += 1
            while end - position >= low:
                self.steps += 1
                yield end
                end -= 1
            return
        if high > 0:
            for end in self._sequence(body, position):
                if end > position:
                    yield from self._repeat(max(low - 1, 0), high - 1, body, end)
        if low == 0:
            yield position

    def _is_word(self, position: int) -> bool:
        inside = 0 <= position < len(self.text)
        return inside and CATEGORIES[codes.CATEGORY_WORD](self.text[position])

    def _matches(self, item: Any, char: str) -> bool:
        code, value = item
        if code == codes.IN:
            negated = value[0][0] == codes.NEGATE
            return any(self._matches(part, char) for part in value[negated:]) != negated
        spellings = {char, char.lower(), char.upper()} if self.ignore_case else {char}
        if code == codes.LITERAL:
            return chr(value) in spellings
        if code == codes.RANGE:
            return any(value[0] <= ord(spelling) <= value[1] for spelling in spellings)
        assert code == codes.CATEGORY, code
        return CATEGORIES[value](char)
