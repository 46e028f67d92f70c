"""A task in memory: its specification and three splits."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from kdedge.runtime.spec import TaskSpec


@dataclass(frozen=True)
class Split:
    """N examples, in file order.

    Attributes:
        texts: N strings.
        pairs: N second strings, or None for single-text tasks.
        labels: Class indices, *shape:* (N,) int64; for multilabel zeros and ones, *shape:* (N, C)
            float32; for regression scores, *shape:* (N,) float32.
    """

    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, indices: np.ndarray | list[int]) -> Split:
        """Return the examples at `indices`, in that order."""
        rows = [int(index) for index in indices]
        texts = tuple(self.texts[row] for row in rows)
        pairs = None
        if self.pairs is not None:
            pairs = tuple(self.pairs[row] for row in rows)
        return Split(texts, pairs, self.labels[rows])

    def content_hash(self) -> str:
        """Return the SHA-256 of texts, pairs and labels in order."""
        digest = hashlib.sha256()
        for column in (self.texts, self.pairs or ()):
            digest.update(len(column).to_bytes(8, "little"))
            for text in column:
                encoded = text.encode("utf-8")
                digest.update(len(encoded).to_bytes(8, "little") + encoded)
        digest.update(str(self.labels.dtype).encode() + str(self.labels.shape).encode())
        digest.update(np.ascontiguousarray(self.labels).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Overlap:
    """How many texts two splits share, as they were read.

    Attributes:
        split: The larger split: train or validation.
        other: The split that is measured on: validation or test.
        equal: Examples of `split` whose text also stands in `other`.
        copies: Examples of `other` that are copies apart from punctuation, accents and invisible
            characters.
        similar: Examples of `other` that are similar: one word differs, or most of a long text is
            the same.
        examples: All examples of `other`.
    """

    split: str
    other: str
    equal: int
    copies: int
    similar: int
    examples: int


@dataclass(frozen=True)
class Task:
    """Three splits: train, validation (to choose checkpoints and settings) and test.

    Attributes:
        notes: What the checks found and allowed, one sentence each.
        beyond_limit: The training examples that `data.limit` leaves out; None without a limit.
            Augmentation may use their texts, and nothing uses their labels.
        overlaps: How many texts the splits shared when they were read.
    """

    spec: TaskSpec
    train: Split
    validation: Split
    test: Split
    notes: tuple[str, ...] = ()
    beyond_limit: Split | None = None
    overlaps: tuple[Overlap, ...] = ()

    def overlaps_json(self) -> list[dict[str, Any]]:
        """Return `overlaps` as JSON values."""
        return [asdict(overlap) for overlap in self.overlaps]

    def content_hash(self) -> str:
        """Return the SHA-256 of the splits and the specification without the task's name."""
        parts = [
            self.train.content_hash(),
            self.validation.content_hash(),
            self.test.content_hash(),
            repr(replace(self.spec, name="")),
        ]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()
