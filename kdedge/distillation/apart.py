"""Set new texts apart from training, to compare students by their agreement on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kdedge.transfer.dataset import TransferSet

MOST_REAL = ("pool", "generate", "replace", "rules")
"""Sources, the one whose texts are most like those that users write first."""

APART_SHARE = 1 / 3
"""Largest share of a source's texts that are kept apart."""

FEW_APART = 200
"""With fewer texts kept apart, a comparison of students may be chance."""


@dataclass(frozen=True)
class ApartTexts:
    """A transfer set in two parts.

    Attributes:
        training: The texts that students may learn from.
        apart: The texts on which they are compared; all come from one source.
    """

    training: TransferSet
    apart: TransferSet


def keep_apart(transfer: TransferSet, count: int) -> ApartTexts:
    """Set the last texts of one source apart: of the sources with enough texts, the most real one.

    Rewritten training texts are the last choice: a student that has learned from more of them knows
    how they are rewritten, which does not help on the texts of users. If no source has enough, the
    largest one is taken.

    Args:
        transfer: Labelled and new texts.
        count: Number of texts to set apart; fewer if the source has too few.
    """
    rows_of = {origin: transfer.texts.rows(origin) for origin in MOST_REAL}
    available = {origin: int(APART_SHARE * len(rows)) for origin, rows in rows_of.items()}
    enough = [o for o in MOST_REAL if available[o] >= min(count, FEW_APART)]
    origin = enough[0] if enough else max(available, key=available.__getitem__)
    kept = min(count, available[origin])
    rows = rows_of[origin]
    apart = rows[len(rows) - kept :]
    training = np.setdiff1d(np.arange(len(transfer)), apart)
    return ApartTexts(transfer.take(training), transfer.take(apart))
