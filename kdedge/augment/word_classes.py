"""Group words by their use, without a part-of-speech tagger.

Schütze 1995, "Distributional Part-of-Speech Tagging": a word is described by how often each
frequent word is its left and its right neighbour. A singular value decomposition shortens
these descriptions and k-means clusters them.
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

NUM_CLASSES = 60

NUM_NEIGHBOURS = 500
"""The most frequent words, most of them grammatical, describe the use of all others."""

MIN_COUNT = 3
"""A rarer word has too few neighbours to know its use."""

MIN_WORDS = 4
"""With fewer words there are no classes."""

NUM_DIMENSIONS = 50

WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")


@dataclass(frozen=True)
class WordClass:
    """N words of similar use.

    Attributes:
        cumulative: Cumulative shares of the words' counts; the last is 1. *Shape:* (N,)
    """

    words: tuple[str, ...]
    cumulative: np.ndarray


@dataclass(frozen=True)
class WordClasses:
    """All classes, and for each word the number of its class."""

    classes: tuple[WordClass, ...]
    class_of: dict[str, int]

    def sample_other(self, word: str, rng: np.random.Generator) -> str | None:
        """Sample another word of the same class in proportion to its count.

        Returns:
            The word, capitalised like `word`; None if there is no other word.
        """
        number = self.class_of.get(word.casefold())
        if number is None:
            return None
        words, cumulative = self.classes[number].words, self.classes[number].cumulative
        if len(words) < 2:
            return None
        own = words.index(word.casefold())
        low = cumulative[own - 1] if own else 0.0
        high = cumulative[own]
        # Skip the word's own interval [low, high) of the line from 0 to 1.
        point = rng.random() * (1 - (high - low))
        if point >= low:
            point = point + high - low
        index = int(np.searchsorted(cumulative, point, side="right"))
        other = words[min(index, len(words) - 1)]
        is_capitalised = word[:1].isupper() and word[1:].islower()
        return other.capitalize() if is_capitalised else other


def induce_classes(texts: tuple[str, ...], *, num_classes: int = NUM_CLASSES) -> WordClasses:
    """Group the words that occur at least `MIN_COUNT` times in the texts, ignoring case."""
    lines = [WORD.findall(text) for text in texts]
    lines = [[word.casefold() for word in line] for line in lines]
    counts: Counter[str] = Counter()
    for line in lines:
        counts.update(line)
    # Alphabetical order breaks ties: the classes must not depend on the order of the texts.
    by_count = sorted(counts, key=lambda word: (-counts[word], word))
    words = [word for word in by_count if counts[word] >= MIN_COUNT and word[0].isalpha()]
    if len(words) < MIN_WORDS:
        return WordClasses((), {})
    neighbours = _count_neighbours(lines, words, by_count[:NUM_NEIGHBOURS])
    dimensions = min(NUM_DIMENSIONS, min(neighbours.shape) - 1)
    points = normalize(TruncatedSVD(dimensions, random_state=0).fit_transform(neighbours))
    clusters = min(num_classes, max(2, len(words) // 4))
    numbers = KMeans(clusters, random_state=0, n_init=1).fit_predict(points).tolist()
    members: list[list[str]] = [[] for _ in range(max(numbers) + 1)]
    for word, number in zip(words, numbers, strict=True):
        members[number].append(word)
    classes = [_word_class(group, counts) for group in members]
    return WordClasses(tuple(classes), dict(zip(words, numbers, strict=True)))


def _word_class(words: list[str], counts: Counter[str]) -> WordClass:
    sums = np.cumsum([counts[word] for word in words], dtype=np.float64)
    return WordClass(tuple(words), sums / sums[-1] if words else sums)


def _count_neighbours(
    lines: list[list[str]], words: list[str], neighbours: list[str]
) -> csr_matrix:
    """Return log(1 + count) of every word's left neighbours, then of its right ones.

    *Shape:* (words, 2 * neighbours)
    """
    row_of = {word: i for i, word in enumerate(words)}
    column_of = {word: i for i, word in enumerate(neighbours)}
    rows, columns = [], []
    for line in lines:
        for left, right in pairwise(line):
            if right in row_of and left in column_of:
                rows.append(row_of[right])
                columns.append(column_of[left])
            if left in row_of and right in column_of:
                rows.append(row_of[left])
                columns.append(len(neighbours) + column_of[right])
    shape = (len(words), 2 * len(neighbours))
    table = csr_matrix((np.ones(len(rows)), (rows, columns)), shape=shape)
    table.sum_duplicates()
    table.data = np.log1p(table.data)
    return table
