"""Combine the first text of a training pair with a similar text of another pair.

Thakur et al. 2021, "Augmented SBERT", arXiv:2010.08240, section 3.1. Texts that are paired at
random have hardly anything in common, so a partner is drawn from the most similar texts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer

from kdedge.augment.source import AugmentedText
from kdedge.augment.word_classes import WORD
from kdedge.data.task import Split

BLOCK = 256
"""Texts that are compared with all others at once."""


@dataclass(frozen=True)
class RecombineSource:
    """The source `recombine`: pairs of texts that stand in different training pairs.

    Attributes:
        texts: Every text of the training pairs once, in order of its first occurrence.
        index: Text -> its place in `texts`.
        vectors: Their TF-IDF vectors of length 1. *Shape:* (texts, words)
        candidates: Number of most similar texts that a partner is drawn from.
    """

    train: Split
    texts: tuple[str, ...]
    index: dict[str, int]
    vectors: csr_matrix
    candidates: int

    origin = "recombine"
    reuses_rows = True

    @classmethod
    def of(cls, train: Split, candidates: int) -> RecombineSource:
        """Index the texts of a training split of pairs."""
        texts = tuple(dict.fromkeys((*train.texts, *(train.pairs or ()))))
        vectors = TfidfVectorizer(token_pattern=WORD.pattern).fit_transform(texts)
        index = {text: place for place, text in enumerate(texts)}
        return cls(train, texts, index, vectors, candidates)

    @property
    def num_rows(self) -> int:
        return len(self.train)

    def produce(self, rows: np.ndarray, rng: np.random.Generator) -> list[AugmentedText]:
        """Give the first text of each training row a new partner."""
        produced = []
        for start in range(0, len(rows), BLOCK):
            produced += self._combine(rows[start : start + BLOCK], rng)
        return produced

    def _combine(self, rows: np.ndarray, rng: np.random.Generator) -> list[AugmentedText]:
        assert self.train.pairs is not None
        firsts = [self.index[self.train.texts[row]] for row in rows]
        own = [self.index[self.train.pairs[row]] for row in rows]
        similarity = (self.vectors[firsts] @ self.vectors.T).toarray()  # (rows, texts)
        places = np.arange(len(rows))
        similarity[places, firsts] = -1.0
        similarity[places, own] = -1.0
        count = min(self.candidates, len(self.texts) - 1)
        nearest = np.argpartition(-similarity, count - 1, axis=1)[:, :count]
        combined = []
        for place, row in enumerate(rows):
            partner = int(rng.choice(nearest[place]))
            if similarity[place, partner] > 0:
                text = AugmentedText(self.train.texts[row], self.texts[partner], int(row))
                combined.append(text)
        return combined
