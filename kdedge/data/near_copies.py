"""Find near copies of texts between two splits, in time linear in their words.

Texts are compared as words: letters and digits, without letter case, accents, punctuation and
invisible characters. A text is a near copy of another if

- it has the same words: a `copy`;
- it is `similar`: one word is changed, added, removed or moved, in texts of 5 to 60 words; or, in
  texts of at least 20 words, 70 % of all groups of three words are the same (Jaccard similarity).

One changed word is found by removing each word in turn: two texts that differ in one word are then
equal. So nothing is missed, and no two texts are compared that share nothing.

`kdedge.augment.near_duplicates` compares more thoroughly, letter by letter, and takes longer.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kdedge.data.simplify import UNSPACED_CHARACTER, simplify
from kdedge.data.task import Split

FEWEST_WORDS = 5
"""In shorter texts one word says nearly everything: "good film" is no copy of "bad film"."""

MOST_WORDS = 60
"""In longer texts a changed word leaves most groups of three words as they are."""

GROUP = 3
GROUPS_FROM = 20
"""Number of words from which groups of three are compared."""

SIMILARITY = 0.7

SIDE = "\x1f"
"""Stands between the two texts of a pair, as a word that is never removed."""

Words = tuple[str, ...]


@dataclass(frozen=True)
class NearCopy:
    """Two rows with nearly the same text.

    Attributes:
        row: Row of the compared split.
        other: Row of the indexed split.
        is_copy: Whether the words are the same; else they are similar.
    """

    row: int
    other: int
    is_copy: bool


class WordIndex:
    """An index of a split's texts by their words."""

    def __init__(self, split: Split) -> None:
        self.by_words: dict[Words, list[int]] = defaultdict(list)
        # By hash, because the words themselves would take much memory. Each split is indexed and
        # compared in one process, so hashes need not be the same in the next.
        self.by_shortened: dict[int, list[int]] = defaultdict(list)
        self.by_group: dict[int, list[int]] = defaultdict(list)
        self.groups: list[tuple[set[int], ...]] = []
        for row, words in enumerate(split_words(split)):
            self.by_words[words].append(row)
            for shortened in _shortened(words):
                self.by_shortened[shortened].append(row)
            sides = _groups(words)
            self.groups.append(sides)
            for group in itertools.chain(*sides):
                self.by_group[group].append(row)

    def copies(self, words: Words) -> Sequence[int]:
        """Return the rows with the same words."""
        return self.by_words.get(words, ())

    def similar(self, words: Words) -> set[int]:
        """Return the rows with similar words; rows with the same words may be among them."""
        rows: set[int] = set()
        for shortened in _shortened(words):
            rows.update(self.by_shortened.get(shortened, ()))
        return rows | self._of_similar_groups(_groups(words))

    def _of_similar_groups(self, sides: tuple[set[int], ...]) -> set[int]:
        """Return the rows with similar groups of three words, for both texts of a pair."""
        shared: Counter[int] = Counter()
        for groups in sides:
            for group in groups & self.by_group.keys():
                shared.update(self.by_group[group])
        size = sum(map(len, sides))
        rows = set()
        for row, count in shared.items():
            other = self.groups[row]
            # If both texts of a pair are similar, so are their groups together.
            is_candidate = count >= SIMILARITY * (size + sum(map(len, other)) - count)
            if is_candidate and all(map(_are_similar, sides, other)):
                rows.add(row)
        return rows


def find_near_copies(split: Split, others: Split) -> Iterator[NearCopy]:
    """Yield every pair of rows in `split` and `others` that are near copies or equal.

    `others` is indexed, so it should be the smaller split.
    """
    index = WordIndex(others)
    for row, words in enumerate(split_words(split)):
        copies = set(index.copies(words))
        for other in sorted(copies):
            yield NearCopy(row, other, is_copy=True)
        for other in sorted(index.similar(words) - copies):
            yield NearCopy(row, other, is_copy=False)


def split_words(split: Split) -> Iterator[Words]:
    """Yield the words of each text, or of each pair of texts."""
    if split.pairs is None:
        for text in split.texts:
            yield text_words(text)
        return
    for text, pair in zip(split.texts, split.pairs, strict=True):
        yield (*text_words(text), SIDE, *text_words(pair))


def text_words(text: str) -> Words:
    """Return the words of a text; in scripts without spaces, each character is a word.

    A text that is only punctuation is one word.
    """
    simple = simplify(text)
    if not simple.isascii():
        simple = UNSPACED_CHARACTER.sub(r" \g<0> ", simple)
    return tuple(simple.split()) or (text.strip(),)


def _shortened(words: Words) -> Iterator[int]:
    """Yield a hash of the words, then one for each way to leave out a single word."""
    if not FEWEST_WORDS <= len(words) - words.count(SIDE) <= MOST_WORDS:
        return
    yield hash(words)
    for position, word in enumerate(words):
        if word != SIDE:
            yield hash(words[:position] + words[position + 1 :])


def _groups(words: Words) -> tuple[set[int], ...]:
    """Return hashes of all groups of three consecutive words, one set for each text.

    A text of a pair that has fewer words is one group.
    """
    if len(words) < GROUPS_FROM:
        return ()
    sides: tuple[Words, ...] = (words,)
    if SIDE in words:
        middle = words.index(SIDE)
        sides = (words[:middle], words[middle + 1 :])
    groups = []
    for number, side in enumerate(sides):
        shifted = (side, side[1:], side[2:])
        found = {hash((number, *group)) for group in zip(*shifted, strict=False)}
        groups.append(found or {hash((number, *side))})
    return tuple(groups)


def _are_similar(first: set[int], second: set[int]) -> bool:
    return len(first & second) >= SIMILARITY * len(first | second)
