"""Keep new texts apart from training, to compare students on them by their teacher's logits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kdedge.transfer.dataset import TransferSet

MOST_REAL = ("pool", "generate", "replace", "rule")
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
    """Keep the last texts of the source that is most like real texts apart from training.

    Changed training texts are the worst judges: a student that has learned from more of them knows
    how they are changed, which is of no use for the texts of users.

    Args:
        transfer: Labelled and new texts.
        count: Number of texts to keep apart; fewer if the source has too few.
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
