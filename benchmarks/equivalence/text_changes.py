"""Changed texts: the same meaning for a reader, written a little differently."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

LONG_WORD = re.compile(r"[^\W\d_]{4,}")
"""Words of at least four letters, which can get a typo."""

WORDS_PER_TYPO = 10

Change = Callable[[str, np.random.Generator], str]


@dataclass(frozen=True)
class Robustness:
    """How one change of the texts changes the predictions of a subject.

    Attributes:
        change: A name in `CHANGES`.
        texts: Number of texts.
        changed: Share of the texts whose predicted label, or set of labels, changes. For a
            regression it is the mean absolute change of the number.
        low: Lower end of the 95 % interval of a share (Wilson); None for a regression.
        high: Upper end.
    """

    change: str
    texts: int
    changed: float
    low: float | None
    high: float | None


def typos(text: str, generator: np.random.Generator) -> str:
    """Swap two neighbouring letters inside one of every ten words, and at least in one.

    CheckList does the same (Ribeiro et al. 2020). The first letter of a word stays, and so do words
    of fewer than four letters.
    """
    long = list(LONG_WORD.finditer(text))
    count = min(len(long), math.ceil(len(text.split()) / WORDS_PER_TYPO))
    letters = list(text)
    for number in generator.permutation(len(long))[:count]:
        place = int(generator.integers(long[number].start() + 1, long[number].end() - 1))
        letters[place], letters[place + 1] = letters[place + 1], letters[place]
    return "".join(letters)


def casing(text: str, generator: np.random.Generator) -> str:
    """Write everything in capitals."""
    return text.upper()


def truncation(text: str, generator: np.random.Generator) -> str:
    """Keep the first half of the words; of a single word, the first half of its characters."""
    words = text.split(" ")
    if len(words) == 1:
        return text[: math.ceil(len(text) / 2)]
    return " ".join(words[: math.ceil(len(words) / 2)])


CHANGES: dict[str, Change] = {"typos": typos, "casing": casing, "truncation": truncation}
"""Name -> function that changes a text."""


def changed(name: str, text: str, seed: int, index: int) -> str:
    """Apply a change to the text with this index; the same seed and index give the same text."""
    return CHANGES[name](text, np.random.default_rng([seed, index]))
