"""Parts of speech without a tagger: words that stand between the same neighbours, found in the task's own texts.

Schütze, "Distributional Part-of-Speech Tagging", EACL 1995: a word is described by how often each frequent word stands
left and right of it; the descriptions are shortened by a singular value decomposition and clustered.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.cluster import KMeans
from sklearn.decomposition import TruncatedSVD
from sklearn.preprocessing import normalize

CLASSES = 60
FREQUENT = 500
"""Neighbours that describe a word: the most frequent words, most of them grammatical."""
SEEN = 3
"""A word seen less often has told too little of its use to be exchanged."""
DIRECTIONS = 50

WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")


def words_of(text: str) -> list[str]:
    """Words and single marks of punctuation, in order."""
    return WORD.findall(text)


@dataclass(frozen=True)
class WordClasses:
    """members: for each class, its words and their shares by frequency, summed up from the first word on. of: word -> class."""

    members: tuple[tuple[tuple[str, ...], np.ndarray], ...]
    of: dict[str, int]

    def other(self, word: str, chance: np.random.Generator) -> str | None:
        """Another word of the same class, more often a frequent one; None for a word without a class or alone in it."""
        group = self.of.get(word.casefold())
        if group is None:
            return None
        words, weights = self.members[group]
        if len(words) < 2:
            return None
        own = words.index(word.casefold())
        low, high = weights[own - 1] if own else 0.0, weights[own]
        point = chance.random() * (1 - (high - low))
        # The word's own stretch of the line from 0 to 1 is stepped over.
        drawn = words[
            min(
                int(
                    np.searchsorted(
                        weights, point if point < low else point + high - low, side="right"
                    )
                ),
                len(words) - 1,
            )
        ]
        return drawn.capitalize() if word[:1].isupper() and word[1:].islower() else drawn


def induce_classes(texts: tuple[str, ...], *, classes: int = CLASSES) -> WordClasses:
    """Classes of the words of N texts that were seen at least `SEEN` times; letter case is ignored."""
    lines = [[word.casefold() for word in words_of(text)] for text in texts]
    counts = Counter(word for line in lines for word in line)
    # Equal counts in the order of the alphabet: the classes must not depend on the order of the texts.
    ranked = sorted(
        (word for word, count in counts.items() if count >= SEEN and word[0].isalpha()),
        key=lambda word: (-counts[word], word),
    )
    if len(ranked) < 4:
        return WordClasses((), {})
    described = _neighbours(
        lines, ranked, sorted(counts, key=lambda word: (-counts[word], word))[:FREQUENT]
    )
    width = min(DIRECTIONS, min(described.shape) - 1)
    points = normalize(TruncatedSVD(width, random_state=0).fit_transform(described))
    groups = KMeans(min(classes, max(2, len(ranked) // 4)), random_state=0, n_init=1).fit_predict(
        points
    )
    members = []
    for group in range(int(groups.max()) + 1):
        words = tuple(word for word, mine in zip(ranked, groups, strict=True) if mine == group)
        shares = np.cumsum([counts[word] for word in words], dtype=np.float64)
        members.append((words, shares / shares[-1] if words else shares))
    return WordClasses(
        tuple(members), {word: int(group) for word, group in zip(ranked, groups, strict=True)}
    )


def _neighbours(lines: list[list[str]], words: list[str], frequent: list[str]) -> csr_matrix:
    """(words, 2 x frequent): log of 1 + how often each frequent word stands left of a word, then right of it."""
    row = {word: i for i, word in enumerate(words)}
    column = {word: i for i, word in enumerate(frequent)}
    rows, columns = [], []
    for line in lines:
        for left, right in pairwise(line):
            if right in row and left in column:
                rows.append(row[right])
                columns.append(column[left])
            if left in row and right in column:
                rows.append(row[left])
                columns.append(len(frequent) + column[right])
    table = csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(words), 2 * len(frequent)))
    table.sum_duplicates()
    table.data = np.log1p(table.data)
    return table
