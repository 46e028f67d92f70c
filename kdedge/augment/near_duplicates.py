"""Near duplicates, found without a miss: an exact set-similarity join on character shingles.

Two texts are near where the Jaccard similarity of their shingles reaches a threshold t. Of sets x and y with that
similarity, the rarest |x| - ceil(t |x|) + 1 shingles of x share at least one with those of y (the prefix filter: Bayardo,
Ma and Srikant, "Scaling Up All Pairs Similarity Search", 2007), so only texts that meet there are compared.
MinHash would find the same pairs with a chance of missing one; a leak must not be missed.

An index may also be asked whether a text holds one of its own nearly whole, however much stands around it: of a text that is
held to a share c, one of its rarest |y| - ceil(c |y|) + 1 shingles is met then, by the same argument.
"""

from __future__ import annotations

import math
import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterable

import numpy as np

from kdedge.data.shares import normalised

SHINGLE, UNSPACED_SHINGLE = 4, 2
"""Characters of a run: of words of letters, and in scripts that write no spaces, where a word has one to three."""

LEAST = 16
"""Shingles from which a text can be told to stand inside another: short ones are phrases that anybody may write."""

MANY = 64
"""From so many texts in one place on, their sizes are compared all at once."""
NOISE = re.compile(r"[\W_]+")
UNSPACED = "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff]"
"""Thai, Lao, Burmese, Khmer, kana and Chinese characters: white space beside them says nothing, and tokenizers read past it."""

BESIDE = re.compile(f"(?<={UNSPACED}) | (?={UNSPACED})")
IN_RUN = re.compile(UNSPACED)
UNSEEN = {"Mn", "Cf"}
"""Unicode's marks on letters and characters without a shape: uncased tokenizers read past both."""


def shingles(text: str, pair: str | None = None) -> frozenset[str]:
    """The runs of `SHINGLE` characters of a text, what `plain` takes out aside; those of a pair's sides are kept apart."""
    sides = [
        _runs(plain(side) or normalised(side))
        for side in (text, *(() if pair is None else (pair,)))
    ]
    return (
        sides[0]
        if pair is None
        else frozenset({"1" + run for run in sides[0]} | {"2" + run for run in sides[1]})
    )


def plain(text: str) -> str:
    """Letters and digits in their plainest form: no case, accents, wide or invisible characters; all between words is one space,
    and nothing beside a character of a script that writes no spaces."""
    if not text.isascii():
        text = "".join(
            one
            for one in unicodedata.normalize("NFKD", text)
            if unicodedata.category(one) not in UNSEEN
        )
    return BESIDE.sub("", NOISE.sub(" ", normalised(text)).strip())


def _runs(text: str) -> frozenset[str]:
    padded = f" {text} "
    if not IN_RUN.search(padded):
        return frozenset(padded[i : i + SHINGLE] for i in range(max(1, len(padded) - SHINGLE + 1)))
    lengths = [
        UNSPACED_SHINGLE if IN_RUN.search(padded, i, i + UNSPACED_SHINGLE) else SHINGLE
        for i in range(len(padded))
    ]
    return frozenset(
        padded[i : i + length] for i, length in enumerate(lengths) if i + length <= len(padded)
    )


def jaccard(first: frozenset[str], second: frozenset[str]) -> float:
    """Size of the intersection over size of the union of two sets that are not both empty."""
    shared = len(first & second)
    return shared / (len(first) + len(second) - shared)


class NearIndex:
    """Texts to be compared with: `near` tells whether one of those added has at least the threshold's similarity, or is held nearly whole.

    whole: the share of a text's shingles from which another holds it; None does not ask. A shingle is kept once, under a number; a text is a run of numbers in one array, so that a million texts fit.
    """

    def __init__(self, threshold: float, order: Counter[str], whole: float | None = None) -> None:
        """order: how often a shingle occurs, in any sample; it decides speed alone, but may not change while the index lives."""
        self.threshold, self.order, self.whole = threshold, order, whole
        self.numbers: dict[str, int] = {}
        self.runs = array("i")  # text after text, the numbers of its shingles
        self.ends = array("q", [0])
        self.sizes = array("i")  # shingles of each text
        self.places: dict[
            int, array[int]
        ] = {}  # number of a shingle -> texts that would be met at it
        self.inner: dict[
            int, array[int]
        ] = {}  # the same of texts that would be met where they are held whole

    def add(self, runs: frozenset[str]) -> None:
        """Put one text's shingles into the index."""
        for run in self._prefix(runs, self.threshold):
            self.places.setdefault(
                self.numbers.setdefault(run, len(self.numbers)), array("i")
            ).append(len(self.sizes))
        if self.whole is not None and len(runs) >= LEAST:
            for run in self._prefix(runs, self.whole):
                self.inner.setdefault(
                    self.numbers.setdefault(run, len(self.numbers)), array("i")
                ).append(len(self.sizes))
        self.runs.extend(self.numbers.setdefault(run, len(self.numbers)) for run in runs)
        self.ends.append(len(self.runs))
        self.sizes.append(len(runs))

    def near(self, runs: frozenset[str]) -> bool:
        """Whether a text of the index is near one with these shingles, or held by it."""
        # Similar sets are of similar size: t |x| <= |y| <= |x| / t. A little wider, against rounding.
        least, most = self.threshold * len(runs) - 1e-6, len(runs) / self.threshold + 1e-6
        mine = {self.numbers[run] for run in runs if run in self.numbers}
        met: set[int] = set()
        for run in self._prefix(runs, self.threshold):
            for place in self._of_size(
                self.places.get(self.numbers.get(run, -1), array("i")), least, most
            ):
                if place not in met:
                    met.add(place)
                    shared = self._shared(mine, place)
                    if shared / (len(runs) + self.sizes[place] - shared) >= self.threshold:
                        return True
        return self.whole is not None and self._holds(mine, self.whole)

    def _holds(self, mine: set[int], share: float) -> bool:
        inside = {place for number in mine for place in self.inner.get(number, ())}
        return any(
            self._shared(mine, place) >= share * self.sizes[place] - 1e-9 for place in inside
        )

    def _shared(self, mine: set[int], place: int) -> int:
        return len(mine.intersection(self.runs[self.ends[place] : self.ends[place + 1]]))

    def _of_size(self, places: array[int], least: float, most: float) -> Iterable[int]:
        if len(places) < MANY:
            return [place for place in places if least <= self.sizes[place] <= most]
        # The views must not outlive this call: an array that is looked at cannot grow.
        found = np.frombuffer(places, np.int32)
        sizes = np.frombuffer(self.sizes, np.int32)[found]
        return found[(sizes >= least) & (sizes <= most)].tolist()  # type: ignore[no-any-return]

    def _prefix(self, runs: frozenset[str], share: float) -> list[str]:
        # Rounded down against 0.6 * 5 = 3.0000000000000004: a longer prefix costs time, a shorter one would miss.
        length = len(runs) - math.ceil(share * len(runs) - 1e-9) + 1
        return sorted(runs, key=lambda run: (self.order[run], run))[:length]


def shingle_counts(texts: Iterable[frozenset[str]]) -> Counter[str]:
    """How often each shingle occurs among N texts."""
    counts: Counter[str] = Counter()
    for runs in texts:
        counts.update(runs)
    return counts
