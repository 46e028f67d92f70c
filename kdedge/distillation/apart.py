"""Set new texts apart from training, to compare students by their agreement on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kdedge.transfer.dataset import TransferSet

MOST_REAL = ("pool", "generate", "replace", "rules")
"""Sources, the one whose texts are most like those that users write first."""

APART_SHARE = 1 / 3
"""Largest share of a source's texts that are kept apart."""


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
    """Set the last texts of one source apart: the source that is most like real texts.

    Rewritten training texts are the last choice: a student that has learned from more of them knows
    how they are rewritten, which does not help on the texts of users.

    Args:
        transfer: Labelled and new texts.
        count: Number of texts to set apart; fewer if the source has too few.
    """
    rows = np.zeros(0, np.int64)
    for origin in MOST_REAL:
        rows = transfer.texts.rows(origin)
        if len(rows):
            break
    kept = min(count, int(APART_SHARE * len(rows)))
    apart = rows[len(rows) - kept :]
    training = np.setdiff1d(np.arange(len(transfer)), apart)
    return ApartTexts(transfer.take(training), transfer.take(apart))
