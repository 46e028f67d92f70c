"""A task in memory: its specification and three splits that share no text unless allowed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from kdedge.runtime.spec import TaskSpec


@dataclass(frozen=True)
class Split:
    """N examples, in file order.

    texts: N strings.
    pairs: N second strings, or None for single-text tasks.
    labels: (N,) int64 class indices; (N, C) float32 of 0 and 1 for multilabel; (N,) float32 for regression.
    """

    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, indices: np.ndarray | list[int]) -> Split:
        """The examples at `indices`, in that order, each text with its own pair and label."""
        chosen = [int(i) for i in indices]
        return Split(
            tuple(self.texts[i] for i in chosen),
            None if self.pairs is None else tuple(self.pairs[i] for i in chosen),
            self.labels[chosen],
        )

    def content_hash(self) -> str:
        """SHA-256 over texts, pairs and labels in order."""
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
class Task:
    """train teaches, validation chooses (checkpoints, settings), test is only ever measured on.

    notes: what the checks saw and let pass, one sentence each; shown to the user and kept in the run.
    """

    spec: TaskSpec
    train: Split
    validation: Split
    test: Split
    notes: tuple[str, ...] = ()

    def content_hash(self) -> str:
        """SHA-256 over the splits and what is asked of them; the task's name does not matter."""
        parts = [
            self.train.content_hash(),
            self.validation.content_hash(),
            self.test.content_hash(),
            repr(replace(self.spec, name="")),
        ]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()
