"""Draw a share of a split by seed and class; equal texts are never separated."""

from __future__ import annotations

import hashlib

import numpy as np

from kdedge.data.task import Split


def normalised(text: str, pair: str | None = None) -> str:
    """Return a text with folded letter case and white space, to compare texts."""
    folded = " ".join(text.casefold().split())
    return folded if pair is None else folded + "\x1f" + " ".join(pair.casefold().split())


def text_keys(split: Split) -> list[str]:
    """Return the normalised text, or pair of texts, of each example."""
    if split.pairs is None:
        return [normalised(text) for text in split.texts]
    return [normalised(text, pair) for text, pair in zip(split.texts, split.pairs, strict=True)]


def draw_share(split: Split, share: float, seed: int, salt: str) -> tuple[Split, Split]:
    """Return (rest, drawn): about `share` of every class is drawn, never all of its texts.

    A text's rank in the draw is a hash of seed, salt and the text. It does not depend on the
    order of the file, and equal texts stay together.
    """
    keys = text_keys(split)
    ranks = np.array([_rank(f"{seed}\x1f{salt}\x1f{key}") for key in keys])
    drawn = np.zeros(len(split), dtype=bool)
    groups = split.labels if split.labels.dtype == np.int64 else np.zeros(len(split), np.int64)
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        drawn[members] = ranks[members] <= _threshold(ranks[members], share)
    drawn_keys = {key for key, is_drawn in zip(keys, drawn, strict=True) if is_drawn}
    drawn = np.array([key in drawn_keys for key in keys], dtype=bool)
    return split.take(np.flatnonzero(~drawn)), split.take(np.flatnonzero(drawn))


def _rank(text: str) -> float:
    """Return a number in [0, 1) that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def _threshold(ranks: np.ndarray, share: float) -> float:
    """Return the rank up to which a class is drawn; below 0 if it has only one text."""
    distinct = np.unique(ranks)
    if len(distinct) < 2:
        return -1.0
    last = min(len(ranks) - 1, max(0, round(share * len(ranks)) - 1))
    return float(min(np.sort(ranks)[last], distinct[-2]))
