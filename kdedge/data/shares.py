"""Draws a share of a split: by seed, label by label, equal texts kept on one side."""

from __future__ import annotations

import hashlib

import numpy as np

from kdedge.data.task import Split


def normalised(text: str, pair: str | None = None) -> str:
    """What two texts must share to count as equal: letters without case, white space folded."""
    one = " ".join(text.casefold().split())
    return one if pair is None else one + "\x1f" + " ".join(pair.casefold().split())


def text_keys(split: Split) -> list[str]:
    """The normalised text (or pair of texts) of each example."""
    if split.pairs is None:
        return [normalised(text) for text in split.texts]
    return [normalised(text, pair) for text, pair in zip(split.texts, split.pairs, strict=True)]


def _last_but_one(places: np.ndarray) -> float:
    """The highest line that leaves one text behind; below 0 when there is only one."""
    distinct = np.unique(places)
    return float(distinct[-2]) if len(distinct) > 1 else -1.0


def draw_share(split: Split, share: float, seed: int, salt: str) -> tuple[Split, Split]:
    """(what stays, what is drawn): about `share` of the examples of every class, but never a class's last text.

    A text's place in the draw is a hash of seed, salt and the text, so it does not depend on file order,
    and equal texts always fall together.
    """
    keys = text_keys(split)
    places = np.array(
        [
            int.from_bytes(
                hashlib.sha256(f"{seed}\x1f{salt}\x1f{key}".encode()).digest()[:8], "big"
            )
            / 2**64
            for key in keys
        ]
    )
    drawn = np.zeros(len(split), dtype=bool)
    groups = split.labels if split.labels.dtype == np.int64 else np.zeros(len(split), np.int64)
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        line = np.sort(places[members])[
            min(len(members) - 1, max(0, round(share * len(members)) - 1))
        ]
        drawn[members] = places[members] <= min(line, _last_but_one(places[members]))
    chosen = {key for key, taken in zip(keys, drawn, strict=True) if taken}
    drawn = np.array([key in chosen for key in keys], dtype=bool)
    return split.take(np.flatnonzero(~drawn)), split.take(np.flatnonzero(drawn))
