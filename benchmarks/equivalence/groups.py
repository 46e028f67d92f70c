"""Groups of texts, by class and by length: accuracy, and agreement with the teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from kdedge.benchmarks.equivalence.shares import holm, less_than_rest

QUARTERS = 4

Masks = list[tuple[str, np.ndarray]]
"""Name of a group, and whether a text belongs to it: (N,) bool."""


@dataclass(frozen=True)
class TextGroup:
    """A group of test texts.

    Attributes:
        name: A class, or a range of lengths.
        texts: Number of texts, at least 1.
        right: Share of right predictions; None without labels.
        agreement: Share of the texts on which student and teacher agree; None without a teacher.
        p: p value of Fisher's exact test of "the group agrees less than the other texts",
            corrected for the number of groups (Holm); None without a teacher or other texts.
    """

    name: str
    texts: int
    right: float | None = None
    agreement: float | None = None
    p: float | None = None


def classes_of(names: Sequence[str], labels: np.ndarray) -> Masks:
    """Return a group for each class that has a text.

    Args:
        names: Names of the classes.
        labels: Classes. *Shape:* (N,)
    """
    masks = []
    for number, name in enumerate(names):
        inside = labels == number
        if inside.any():
            masks.append((name, inside))
    return masks


def quarters_of(tokens: np.ndarray) -> Masks:
    """Return up to four groups of texts of growing length, split at the quartiles.

    Texts of the same length stay together, so that groups can differ in size. If all texts have the
    same length there is one group.

    Args:
        tokens: Number of tokens of each text. *Shape:* (N,)
    """
    limits = np.unique(np.quantile(tokens, np.arange(1, QUARTERS + 1) / QUARTERS, method="lower"))
    masks = []
    above = int(tokens.min()) - 1
    for limit in limits.astype(int).tolist():
        inside = (tokens > above) & (tokens <= limit)
        shortest, longest = int(tokens[inside].min()), int(tokens[inside].max())
        name = f"{shortest} to {longest} tokens" if shortest < longest else f"{longest} tokens"
        masks.append((name, inside))
        above = limit
    return masks


def groups_of(
    masks: Masks, right: np.ndarray | None, agrees: np.ndarray | None
) -> tuple[TextGroup, ...]:
    """Measure groups of texts.

    Args:
        masks: The groups.
        right: Whether each prediction is right. *Shape:* (N,) bool, or None.
        agrees: Whether student and teacher agree. *Shape:* (N,) bool, or None.
    """
    p_values: list[float | None] = [None] * len(masks)
    if agrees is not None and len(masks) > 1:
        p_values = [*holm([less_than_rest(inside, agrees) for _, inside in masks])]
    groups = []
    for (name, inside), p in zip(masks, p_values, strict=True):
        groups.append(
            TextGroup(name, int(inside.sum()), _share(right, inside), _share(agrees, inside), p)
        )
    return tuple(groups)


def _share(values: np.ndarray | None, inside: np.ndarray) -> float | None:
    return None if values is None else float(values[inside].mean())
