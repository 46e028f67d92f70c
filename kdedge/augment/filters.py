"""What a made text must pass before the teacher sees it, and after; every rejection is counted by origin and reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from kdedge.augment.near_duplicates import NearIndex, shingle_counts, shingles
from kdedge.augment.source import AugmentedText
from kdedge.data.shares import normalised, text_keys
from kdedge.data.task import Split, Task
from kdedge.errors import UsageError
from kdedge.recipe import FilterConfig

WHOLE = 0.9
"""Share of a held-out text's shingles that a made text may not hold, whatever stands around them; never less than `filters.held_out`."""

SPACED = 0.08
"""Share of white space from which a language counts as one that separates words by it."""


def text_length(text: str, by_words: bool) -> int:
    """Words of a text, or its characters."""
    return len(text.split()) if by_words else len(text)


def writes_spaces(texts: tuple[str, ...]) -> bool:
    """Whether these texts separate their words by white space."""
    characters = sum(map(len, texts))
    return (
        characters == 0 or sum(sum(map(str.isspace, text)) for text in texts) >= SPACED * characters
    )


@dataclass
class TextFilter:
    """The filters that need no teacher, in the order in which they are asked; texts it passes count as seen from then on.

    perplexity: lowest and highest mean surprise (nats per token) of generated text; None lets all pass.
    rejected: (origin, reason) -> texts.
    """

    filters: FilterConfig
    by_words: bool
    shortest: int
    longest: int
    held_out_keys: frozenset[str]
    held_out: NearIndex
    seen: set[str]
    near: NearIndex
    perplexity: tuple[float, float] | None = None
    rejected: Counter[tuple[str, str]] = field(default_factory=Counter)

    @classmethod
    def of(
        cls, filters: FilterConfig, task: Task, perplexity: tuple[float, float] | None = None
    ) -> TextFilter:
        """A sieve that knows the training texts as seen and the validation and test texts as forbidden, pairs in either order."""
        train = task.train
        forbidden: tuple[Split, ...] = (task.validation, task.test)
        by_words = writes_spaces(train.texts)
        lengths = [
            text_length(side, by_words)
            for sides in (train.texts, train.pairs or ())
            for side in sides
        ]
        order = shingle_counts(_all_shingles(train))
        near, held_out = (
            NearIndex(filters.near, order),
            NearIndex(filters.held_out, order, whole=max(WHOLE, filters.held_out)),
        )
        for runs in _all_shingles(train):
            near.add(runs)
        forbidden += tuple(
            replace(split, texts=split.pairs, pairs=split.texts)
            for split in forbidden
            if split.pairs is not None
        )
        for split in forbidden:
            for runs in _all_shingles(split):
                held_out.add(runs)
        keys = frozenset(key for split in forbidden for key in text_keys(split))
        band = (filters.shortest or min(lengths), filters.longest or max(lengths))
        if band[0] > band[1]:
            found = f"from {band[0]} to {band[1]} {'words' if by_words else 'characters'}; training texts have {min(lengths)} to {max(lengths)}"
            raise UsageError(
                "no text can pass the length gate",
                found,
                "set augment.filters.shortest and longest together",
            )
        return cls(
            filters, by_words, *band, keys, held_out, set(text_keys(train)), near, perplexity
        )

    def know(self, texts: Sequence[str], pairs: Sequence[str] | None) -> None:
        """Count N texts as seen."""
        for text, pair in zip(texts, pairs or (None,) * len(texts), strict=True):
            self.seen.add(normalised(text, pair))
            self.near.add(shingles(text, pair))

    def starts(self, split: Split) -> np.ndarray:
        """The rows of a split whose texts have a length that made texts may have; all rows where none has."""
        sides = zip(split.texts, *([split.pairs] if split.pairs else []), strict=True)
        rows = np.flatnonzero([self._has_length(texts) for texts in sides])
        return rows if len(rows) else np.arange(len(split))

    def admit(self, made: AugmentedText, origin: str) -> bool:
        """Whether the text passes; if not, why is counted."""
        reason = self._fault(made)
        if reason:
            self.rejected[origin, reason] += 1
        return reason is None

    def _fault(self, made: AugmentedText) -> str | None:
        key = normalised(made.text, made.pair)
        if key in self.seen:
            return "duplicate"
        if not self._has_length((made.text,) if made.pair is None else (made.text, made.pair)):
            return "length"
        if (
            made.surprise is not None
            and self.perplexity is not None
            and not self.perplexity[0] <= made.surprise <= self.perplexity[1]
        ):
            return "perplexity"
        runs = shingles(made.text, made.pair)
        if key in self.held_out_keys or self.held_out.near(runs):
            return "held out"
        if self.near.near(runs):
            return "near duplicate"
        self.seen.add(key)
        self.near.add(runs)
        return None

    def _has_length(self, texts: tuple[str, ...]) -> bool:
        return all(
            self.shortest <= text_length(text, self.by_words) <= self.longest for text in texts
        )


def _all_shingles(split: Split) -> Iterator[frozenset[str]]:
    pairs = split.pairs or (None,) * len(split)
    return (shingles(text, pair) for text, pair in zip(split.texts, pairs, strict=True))


def confident(highest: np.ndarray, band: tuple[float, float]) -> np.ndarray:
    """(N,) whether the highest of the teacher's probabilities of each text, (N,), lies in the band, ends included."""
    return np.asarray((highest >= band[0]) & (highest <= band[1]))


def balanced(labels: np.ndarray, labelled: np.ndarray, most: float) -> np.ndarray:
    """(N,) which made texts to keep so that no label has more than `most` times the texts that it would have in the labelled proportions.

    labels: (N,) the teacher's; labelled: (M,) class indices. The earlier text of a label is kept before the later one.
    """
    shares = np.bincount(
        labelled, minlength=int(max(labels.max(initial=0), labelled.max(initial=0))) + 1
    ) / max(1, len(labelled))
    rank = np.zeros(len(labels), np.int64)  # how many texts of the same label stand before this one
    for label in np.unique(labels):
        mine = np.flatnonzero(labels == label)
        rank[mine] = np.arange(len(mine))
    return np.asarray(rank < np.ceil(most * shares * len(labels) - 1e-6)[labels])
