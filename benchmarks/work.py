"""The calls of a subject that are timed: of a single text, or of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

import numpy as np
from kdedge.benchmarks.examples import Examples
from kdedge.benchmarks.subjects import Runner

from kdedge.evaluation.timing import Work

BATCHES = 16
"""Largest number of different batches."""

Batch = tuple[list[str], list[str] | None]
"""Texts, and the second texts of a pair task."""


def single_work(runner: Runner, items: Sequence[Batch]) -> Work:
    """Return a function that runs item i and returns its seconds with and without tokenization."""

    def work(item: int) -> tuple[float, ...]:
        start = perf_counter()
        encoded = runner.encode(*items[item])
        middle = perf_counter()
        runner.run(encoded)
        end = perf_counter()
        return end - start, end - middle

    return work


def batch_work(runner: Runner, batches: Sequence[Batch]) -> Work:
    """Return a function that runs batch i and returns its seconds with tokenization."""

    def work(item: int) -> tuple[float, ...]:
        start = perf_counter()
        runner.run(runner.encode(*batches[item]))
        return (perf_counter() - start,)

    return work


def full_batches(examples: Examples, size: int) -> list[Batch]:
    """Return full batches in file order; texts fewer than one batch are repeated."""
    count = min(BATCHES, max(1, len(examples) // size))
    batches = []
    for number in range(count):
        indices = np.arange(number * size, (number + 1) * size) % len(examples)
        batches.append(take(examples, indices))
    return batches


def take(examples: Examples, indices: Sequence[int] | np.ndarray) -> Batch:
    """Return the texts at `indices`, and their second texts."""
    texts = [examples.texts[index] for index in indices]
    if examples.pairs is None:
        return texts, None
    return texts, [examples.pairs[index] for index in indices]
