"""What a source of new texts gives, and how it is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class AugmentedText:
    """One new text, and pair. row: the training example it was made from or near. surprise: nats per token, of generated text alone."""

    text: str
    pair: str | None
    row: int
    surprise: float | None = None


class Source(Protocol):
    """A way of making texts. origin: its name in a transfer set."""

    @property
    def origin(self) -> str: ...

    @property
    def renewable(self) -> bool:
        """Whether a row gives another text when it is asked again."""

    @property
    def starts(self) -> int:
        """How many rows there are to start from: those of the training split, but for a pool."""

    def make(self, rows: np.ndarray, chance: np.random.Generator) -> list[AugmentedText]:
        """At most one text for each row (N,), a pure function of rows and chance."""
