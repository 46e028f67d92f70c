"""The interface of all sources of new texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class AugmentedText:
    """One new text, or pair of texts, without a label.

    Attributes:
        row: Row of the training example that it comes from; -1 if there is none.
        mean_nll: Mean negative log-likelihood in nats per token; generated texts only.
    """

    text: str
    pair: str | None
    row: int
    mean_nll: float | None = None

    @property
    def sides(self) -> tuple[str, ...]:
        """The text, or both texts of a pair."""
        return (self.text,) if self.pair is None else (self.text, self.pair)


class TextSource(Protocol):
    """A source of new texts: it makes (generates, rewrites or reads) a text from a row."""

    @property
    def origin(self) -> str:
        """The name of the source in a transfer set."""

    @property
    def reuses_rows(self) -> bool:
        """Whether a row yields a new text each time it is used."""

    @property
    def num_rows(self) -> int:
        """The number of rows: training examples, or texts of the pool."""

    def produce(self, rows: np.ndarray, rng: np.random.Generator) -> list[AugmentedText]:
        """Return at most one text for each of N rows; only the rows and `rng` decide it."""
