"""Rewrite texts by rule: mask words, exchange words, keep a window of words.

Tang et al. 2019, "Distilling Task-Specific Knowledge from BERT into Simple Neural Networks",
section 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kdedge.augment.source import AugmentedText
from kdedge.augment.word_classes import WordClasses
from kdedge.data.task import Split
from kdedge.recipe import RulesConfig

REWRITTEN_SIDES = ("first", "second", "both")
"""Which text of a pair is rewritten, in turn."""


@dataclass(frozen=True)
class RuleSource:
    """The source `rules`: texts with masked or exchanged words.

    Attributes:
        classes: Word classes; a word is exchanged for another word of its class.
        mask: The teacher's mask token; if None, masked words are dropped.
    """

    recipe: RulesConfig
    train: Split
    classes: WordClasses
    mask: str | None

    origin = "rules"
    reuses_rows = True

    @property
    def num_rows(self) -> int:
        return len(self.train)

    def produce(self, rows: np.ndarray, rng: np.random.Generator) -> list[AugmentedText]:
        """Rewrite the text of each training row; drop texts without a word."""
        texts = []
        for i, row in enumerate(rows):
            text = self.train.texts[row]
            if self.train.pairs is None:
                text, pair = self.rewrite(text, rng), None
            else:
                sides = REWRITTEN_SIDES[i % len(REWRITTEN_SIDES)]
                pair = self.train.pairs[row]
                if sides != "second":
                    text = self.rewrite(text, rng)
                if sides != "first":
                    pair = self.rewrite(pair, rng)
            if text and pair != "":
                texts.append(AugmentedText(text, pair, int(row)))
        return texts

    def rewrite(self, text: str, rng: np.random.Generator) -> str:
        """Mask, exchange or keep each word, then maybe keep a window; "" if all are masked."""
        old_words = text.split()
        words = []
        for word, draw in zip(old_words, rng.random(len(old_words)), strict=True):
            new = self._rewrite_word(word, float(draw), rng)
            if new:
                words.append(new)
        if words and rng.random() < self.recipe.window:
            size = int(rng.integers(1, self.recipe.longest_window + 1))
            start = int(rng.integers(0, max(1, len(words) - size + 1)))
            words = words[start : start + size]
        if all(word == self.mask for word in words):
            return ""
        return " ".join(words)

    def _rewrite_word(self, word: str, draw: float, rng: np.random.Generator) -> str:
        if draw < self.recipe.mask:
            return self.mask or ""
        if draw < self.recipe.mask + self.recipe.exchange:
            return self.classes.sample_other(word, rng) or word
        return word
