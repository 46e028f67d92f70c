"""Filters that reject texts before the teacher labels them; rejections are counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import repeat

import numpy as np

from kdedge.augment.near_duplicates import NearDuplicateIndex, count_shingles, shingles
from kdedge.augment.source import AugmentedText
from kdedge.data.shares import normalised, text_keys
from kdedge.data.task import Split, Task
from kdedge.errors import UsageError
from kdedge.recipe import FilterConfig
from kdedge.runtime.cleaning import Cleaner

CONTAINMENT = 0.9
"""A text that contains this share of a held-out text is rejected, whatever else it contains."""

MIN_SPACE_SHARE = 0.08
"""Share of white space from which a language is taken to separate its words by spaces."""


def writes_spaces(texts: Sequence[str]) -> bool:
    """Return whether these texts separate words by white space."""
    characters = sum(map(len, texts))
    spaces = 0
    for text in texts:
        spaces += sum(map(str.isspace, text))
    return spaces >= MIN_SPACE_SHARE * characters


@dataclass(frozen=True)
class LengthRange:
    """The lengths that a text may have, in words or in characters."""

    shortest: int
    longest: int
    by_words: bool

    @classmethod
    def of(cls, filters: FilterConfig, train: Split) -> LengthRange:
        """Return the range that the recipe sets, or else that of the training texts.

        Raises:
            UsageError: If the range is empty.
        """
        by_words = writes_spaces(train.texts)
        lengths = [text_length(text, by_words) for text in (*train.texts, *(train.pairs or ()))]
        shortest = filters.shortest or min(lengths)
        longest = filters.longest or max(lengths)
        if shortest > longest:
            unit = "words" if by_words else "characters"
            raise UsageError(
                "no text can pass the length filter",
                f"from {shortest} to {longest} {unit}; "
                f"training texts have {min(lengths)} to {max(lengths)}",
                "set augment.filters.shortest and longest together",
            )
        return cls(shortest, longest, by_words)

    def includes(self, text: str) -> bool:
        return self.shortest <= text_length(text, self.by_words) <= self.longest


def text_length(text: str, by_words: bool) -> int:
    return len(text.split()) if by_words else len(text)


@dataclass(frozen=True)
class KnownTexts:
    """A set of texts that can be searched for equal texts and near duplicates."""

    near: NearDuplicateIndex
    keys: set[str] = field(default_factory=set)

    def add(self, text: str, pair: str | None) -> None:
        self.keys.add(normalised(text, pair))
        self.near.add(shingles(text, pair))

    def add_split(self, split: Split) -> None:
        self.keys.update(text_keys(split))
        for text_shingles in _shingles_of(split):
            self.near.add(text_shingles)


def _as_they_are_and_cleaned(split: Split, steps: Sequence[str]) -> list[Split]:
    """Return a split, and the cleaned texts of those rows that cleaning changes."""
    clean = Cleaner(steps).clean
    texts = tuple(map(clean, split.texts))
    pairs = None if split.pairs is None else tuple(map(clean, split.pairs))
    cleaned = replace(split, texts=texts, pairs=pairs)
    changed = np.array(split.texts) != np.array(texts)
    if pairs is not None and split.pairs is not None:
        changed |= np.array(split.pairs) != np.array(pairs)
    return [split, cleaned.take(np.flatnonzero(changed))]


@dataclass
class TextFilter:
    """The filters that need no teacher. They also reject copies of texts accepted before.

    Attributes:
        nll_range: Lowest and highest mean negative log-likelihood of a generated text, in
            nats per token; None accepts every value.
        rejected: (origin, reason) -> number of texts.
    """

    lengths: LengthRange
    held_out: KnownTexts
    seen: KnownTexts
    nll_range: tuple[float, float] | None = None
    rejected: Counter[tuple[str, str]] = field(default_factory=Counter)

    @classmethod
    def for_task(
        cls,
        filters: FilterConfig,
        task: Task,
        nll_range: tuple[float, float] | None = None,
        clean: Sequence[str] = (),
    ) -> TextFilter:
        """Create a filter that rejects copies of training, validation and test texts.

        A pair of the validation or test split is also rejected with its texts swapped.

        Args:
            clean: Steps that clean new texts before they are filtered. The splits are then known
                both as they are and cleaned: else a cleaned copy of a test text would differ.
        """
        frequencies = count_shingles(_shingles_of(task.train))
        seen = KnownTexts(NearDuplicateIndex(filters.near, frequencies))
        for split in _as_they_are_and_cleaned(task.train, clean):
            seen.add_split(split)
        containment = max(CONTAINMENT, filters.held_out)
        held_out = KnownTexts(NearDuplicateIndex(filters.held_out, frequencies, containment))
        for each in (task.validation, task.test):
            for split in _as_they_are_and_cleaned(each, clean):
                held_out.add_split(split)
                if split.pairs is not None:
                    held_out.add_split(replace(split, texts=split.pairs, pairs=split.texts))
        return cls(LengthRange.of(filters, task.train), held_out, seen, nll_range)

    def eligible_rows(self, split: Split) -> np.ndarray:
        """Return the rows whose texts have an allowed length; all rows if no text has."""
        allowed = np.array([self.lengths.includes(text) for text in split.texts])
        if split.pairs is not None:
            allowed &= np.array([self.lengths.includes(text) for text in split.pairs])
        return np.flatnonzero(allowed) if allowed.any() else np.arange(len(split))

    def accept(self, text: AugmentedText, origin: str) -> bool:
        """Return whether the text passes all filters; remember the text or count a rejection."""
        reason = self._rejection(text)
        if reason is None:
            self.seen.add(text.text, text.pair)
            return True
        self.rejected[origin, reason] += 1
        return False

    def rejected_by_reason(self, origin: str) -> dict[str, int]:
        """Return how many texts of one source each filter rejected, by reason."""
        counts = sorted(self.rejected.items())
        return {reason: count for (source, reason), count in counts if source == origin}

    def _rejection(self, text: AugmentedText) -> str | None:
        key = normalised(text.text, text.pair)
        if key in self.seen.keys:
            return "duplicate"
        if not all(map(self.lengths.includes, text.sides)):
            return "length"
        if not self._is_plausible(text.mean_nll):
            return "perplexity"
        text_shingles = shingles(text.text, text.pair)
        if key in self.held_out.keys or self.held_out.near.has_near_duplicate(text_shingles):
            return "held out"
        if self.seen.near.has_near_duplicate(text_shingles):
            return "near duplicate"
        return None

    def _is_plausible(self, mean_nll: float | None) -> bool:
        if mean_nll is None or self.nll_range is None:
            return True
        lowest, highest = self.nll_range
        return lowest <= mean_nll <= highest


def _shingles_of(split: Split) -> Iterator[frozenset[str]]:
    pairs = split.pairs or repeat(None, len(split))
    return map(shingles, split.texts, pairs)
