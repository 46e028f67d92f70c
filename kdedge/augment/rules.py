"""Texts altered by rule: Tang et al. 2019, "Distilling Task-Specific Knowledge from BERT into Simple Neural Networks", section 3."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kdedge.augment.source import AugmentedText
from kdedge.augment.word_classes import WordClasses
from kdedge.data.task import Split
from kdedge.recipe import RulesConfig

SIDES = ("first", "second", "both")
"""Of a pair, which text is altered, in turn."""


@dataclass(frozen=True)
class RuleSource:
    """The source `rule`. mask: the word that stands for a masked one; None where the teacher knows none, and then the word is dropped."""

    recipe: RulesConfig
    train: Split
    classes: WordClasses
    mask: str | None

    origin = "rule"
    renewable = True

    @property
    def starts(self) -> int:
        return len(self.train)

    def make(self, rows: np.ndarray, chance: np.random.Generator) -> list[AugmentedText]:
        """One altered text for each training row (N,); of pairs the first, the second or both sides in turn."""
        made = []
        for i, row in enumerate(rows):
            text, pair = self.train.texts[row], self.train.pairs[row] if self.train.pairs else None
            side = SIDES[i % 3] if pair is not None else "first"
            if side != "second":
                text = self.altered(text, chance)
            if pair is not None and side != "first":
                pair = self.altered(pair, chance)
            if text and pair != "":
                made.append(AugmentedText(text, pair, int(row)))
        return made

    def altered(self, text: str, chance: np.random.Generator) -> str:
        """Each word masked, exchanged or kept by its own draw; then, by one draw, only a window of the words kept; empty where all are masked."""
        words = text.split()
        words = [
            new
            for word, draw in zip(words, chance.random(len(words)), strict=True)
            if (new := self._word(word, float(draw), chance))
        ]
        if words and chance.random() < self.recipe.window:
            size = int(chance.integers(1, self.recipe.longest_window + 1))
            start = int(chance.integers(0, max(1, len(words) - size + 1)))
            words = words[start : start + size]
        return "" if all(word == self.mask for word in words) else " ".join(words)

    def _word(self, word: str, draw: float, chance: np.random.Generator) -> str:
        if draw < self.recipe.mask:
            return self.mask or ""
        if draw < self.recipe.mask + self.recipe.exchange:
            return self.classes.other(word, chance) or word
        return word
