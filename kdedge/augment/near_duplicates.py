"""Find near duplicates of a text exactly: a set-similarity join on character shingles.

A text is represented by the set of its 4-letter shingles (all substrings of 4 characters).
Two texts x and y are near duplicates if the share of common shingles, the Jaccard
similarity |x ∩ y| / |x ∪ y|, is at least a threshold t.

Comparing every pair of texts is too slow. The prefix filter (Bayardo, Ma and Srikant 2007,
"Scaling Up All Pairs Similarity Search") skips only pairs that cannot be near duplicates:

- Near duplicates have at least t |x| shingles in common, because |x ∪ y| >= |x|.
  So at most |x| - ceil(t |x|) shingles of x are missing from y; the same holds for y.
- Sort the shingles of every text in one fixed order, rarest first. The prefix of x is its
  first |x| - ceil(t |x|) + 1 shingles: one more than can be missing from y.
- The first common shingle in this order is then in the prefix of x and in the prefix of y.

So only texts with a common shingle in their prefixes are compared. Rare shingles come first,
so few texts share one. The positional filter (Xiao et al. 2008, "Efficient Similarity Joins for
Near Duplicate Detection") leaves out long texts: if only r shingles of x that indexed texts have
are left from the first common one on, at most r are common. Near duplicates have at least
t (|x| + |y|) / (1 + t) in common, so |y| is at most r (1 + t) / t - |x|.

MinHash is faster, but it misses some near duplicates by chance, and a missed copy of a test text
would make the evaluation worthless.

The index also detects containment: a text that holds a share c of the shingles of an indexed
text y, however long the rest of it is. By the same argument it holds at least one of the
first |y| - ceil(c |y|) + 1 shingles of y.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable

import numpy as np

from kdedge.data.shares import normalised
from kdedge.data.simplify import UNSPACED_CHARACTER, simplify

SHINGLE_LENGTH = 4
UNSPACED_SHINGLE_LENGTH = 2
"""Characters of a shingle in scripts without spaces, where a word has one to three characters."""

MIN_CONTAINED_SHINGLES = 16
"""Containment is checked only for texts with this many shingles: anybody may write a short one."""

VECTORISE_FROM = 64
"""Number of candidate texts from which numpy compares their sizes faster than a loop."""


def shingles(text: str, pair: str | None = None) -> frozenset[str]:
    """Return a text's shingles; for a pair, a prefix marks which text each comes from."""
    first = _shingles_of_one(text)
    if pair is None:
        return first
    second = _shingles_of_one(pair)
    return frozenset({"1" + shingle for shingle in first} | {"2" + shingle for shingle in second})


def _shingles_of_one(text: str) -> frozenset[str]:
    # A text that is only punctuation is compared unchanged.
    padded = f" {simplify(text) or normalised(text)} "
    if not UNSPACED_CHARACTER.search(padded):
        last = max(1, len(padded) - SHINGLE_LENGTH + 1)
        return frozenset(padded[start : start + SHINGLE_LENGTH] for start in range(last))
    result = set()
    for start in range(len(padded)):
        end = start + UNSPACED_SHINGLE_LENGTH
        if not UNSPACED_CHARACTER.search(padded, start, end):
            end = start + SHINGLE_LENGTH
        if end <= len(padded):
            result.add(padded[start:end])
    return frozenset(result)


def count_shingles(texts: Iterable[frozenset[str]]) -> Counter[str]:
    """Count in how many texts each shingle occurs."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    return counts


class NearDuplicateIndex:
    """An index of texts, to find out whether a new text is a near duplicate of one of them.

    Every shingle is stored once, with a number; a text is a slice of one array of numbers.
    A million texts fit into memory this way.
    """

    def __init__(
        self, threshold: float, frequencies: Counter[str], containment: float | None = None
    ) -> None:
        """Create an empty index.

        Args:
            threshold: Lowest Jaccard similarity of near duplicates.
            frequencies: Count of each shingle in a sample of texts. It defines the order
                "rarest first", which affects the speed only. Do not change it later.
            containment: Lowest share of an indexed text's shingles in a text that contains it.
                None switches this check off.
        """
        self.threshold = threshold
        self.frequencies = frequencies
        self.containment = containment
        self.numbers: dict[str, int] = {}
        self.shingle_numbers = array("i")  # the shingles of all texts, one text after the other
        self.ends = array("q", [0])  # where each text ends in `shingle_numbers`
        self.sizes = array("i")
        # Number of a shingle -> texts with this shingle in their prefix.
        self.by_similarity_prefix: dict[int, array[int]] = defaultdict(lambda: array("i"))
        self.by_containment_prefix: dict[int, array[int]] = defaultdict(lambda: array("i"))

    def add(self, text: frozenset[str]) -> None:
        """Add a text, given as its shingles."""
        index = len(self.sizes)
        for shingle in self._prefix(text, self.threshold):
            self.by_similarity_prefix[self._number(shingle)].append(index)
        if self.containment is not None and len(text) >= MIN_CONTAINED_SHINGLES:
            for shingle in self._prefix(text, self.containment):
                self.by_containment_prefix[self._number(shingle)].append(index)
        self.shingle_numbers.extend(map(self._number, text))
        self.ends.append(len(self.shingle_numbers))
        self.sizes.append(len(text))

    def has_near_duplicate(self, text: frozenset[str]) -> bool:
        """Return whether an indexed text is similar to this one or contained in it."""
        known = {self.numbers[shingle] for shingle in text if shingle in self.numbers}
        return self._has_similar(text, known) or self._contains_indexed(known)

    def _has_similar(self, text: frozenset[str], known: set[int]) -> bool:
        # Near duplicates have at least t |x| shingles. The margins absorb rounding.
        smallest = self.threshold * len(text) - 1e-6
        remaining = len(known)  # without those that were looked up
        compared: set[int] = set()
        for shingle in self._prefix(text, self.threshold):
            number = self.numbers.get(shingle)
            if number is None:
                continue
            largest = remaining * (1 + 1 / self.threshold) - len(text) + 1e-6
            if largest < smallest:
                return False
            remaining -= 1
            indices = self.by_similarity_prefix.get(number)
            if indices is None:
                continue
            for index in self._of_size(indices, smallest, largest):
                if index in compared:
                    continue
                compared.add(index)
                shared = self._count_shared(known, index)
                if shared / (len(text) + self.sizes[index] - shared) >= self.threshold:
                    return True
        return False

    def _contains_indexed(self, known: set[int]) -> bool:
        if self.containment is None:
            return False
        candidates: set[int] = set()
        for number in known:
            candidates.update(self.by_containment_prefix.get(number, ()))
        for index in candidates:
            required = self.containment * self.sizes[index] - 1e-9
            if len(known) >= required and self._count_shared(known, index) >= required:
                return True
        return False

    def _number(self, shingle: str) -> int:
        return self.numbers.setdefault(shingle, len(self.numbers))

    def _count_shared(self, known: set[int], index: int) -> int:
        start, end = self.ends[index], self.ends[index + 1]
        return len(known.intersection(self.shingle_numbers[start:end]))

    def _of_size(self, indices: array[int], smallest: float, largest: float) -> Iterable[int]:
        if len(indices) < VECTORISE_FROM:
            return [index for index in indices if smallest <= self.sizes[index] <= largest]
        # These views must not outlive the call: an array with a view cannot grow.
        candidates = np.frombuffer(indices, np.int32)
        sizes = np.frombuffer(self.sizes, np.int32)[candidates]
        matching: list[int] = candidates[(sizes >= smallest) & (sizes <= largest)].tolist()
        return matching

    def _prefix(self, text: frozenset[str], share: float) -> list[str]:
        # 0.6 * 5 is 3.0000000000000004: without the margin the prefix would be one too short.
        length = len(text) - math.ceil(share * len(text) - 1e-9) + 1
        return sorted(text, key=self._rarest_first)[:length]

    def _rarest_first(self, shingle: str) -> tuple[int, str]:
        return self.frequencies[shingle], shingle
