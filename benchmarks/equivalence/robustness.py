"""Robustness: how many predictions change if the texts are changed a little."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from kdedge.benchmarks.equivalence.shares import share_interval
from kdedge.benchmarks.equivalence.text_changes import CHANGES, Robustness, changed
from kdedge.benchmarks.examples import Examples
from kdedge.benchmarks.row import Row
from kdedge.benchmarks.subjects import Runner, Subject

from kdedge.evaluation.timing import representative
from kdedge.run.progress import Progress
from kdedge.runtime import metrics
from kdedge.runtime.agreement import same_label
from kdedge.runtime.spec import TaskSpec

TEXTS = 100
"""Largest number of texts that are changed."""

FEWEST = 50
"""With fewer texts, a share of changed predictions means nothing."""

LONGEST = 10.0
"""A subject that needs more seconds than this is left out."""


def measure_robustness(
    spec: TaskSpec,
    pairs: Sequence[tuple[Row, Subject]],
    examples: Examples,
    *,
    seed: int,
    progress: Progress,
) -> dict[str, tuple[Robustness, ...]]:
    """Compare the predictions of ONNX files and teacher for changed texts, one by one.

    Args:
        spec: The task.
        pairs: Measured subjects.
        examples: The texts; all subjects get the same ones, with the same changes.
        seed: Decides texts and changes.
        progress: Receives messages.

    Returns:
        Key of a subject -> one value for each change; {} if there are too few texts.
    """
    if len(examples) < FEWEST:
        return {}
    chosen = representative(examples.lengths, TEXTS, seed)
    measured: dict[str, tuple[Robustness, ...]] = {}
    subjects = []
    for row, subject in pairs:
        if _is_measured(row, pairs) and _seconds(row) <= LONGEST:
            subjects.append(subject)
    progress.start("changing texts", len(subjects))
    for number, subject in enumerate(subjects, 1):
        runner = subject.runner
        assert runner is not None
        before = _logits(runner, examples, chosen, change=None, seed=seed)
        values = []
        for change in CHANGES:
            after = _logits(runner, examples, chosen, change=change, seed=seed)
            values.append(_robustness(spec, change, before, after))
        measured[subject.key] = tuple(values)
        progress.advance(number, subject.key)
    progress.finish()
    return measured


def too_slow(pairs: Sequence[tuple[Row, Subject]]) -> list[str]:
    """Return the labels of the subjects that are too slow for changed texts."""
    return [row.label for row, _ in pairs if _is_measured(row, pairs) and _seconds(row) > LONGEST]


def _is_measured(row: Row, pairs: Sequence[tuple[Row, Subject]]) -> bool:
    """Return whether a row is an ONNX file, or a teacher in torch that has no fp32 file."""
    if row.kind != "model" or row.single is None:
        return False
    if row.form == "onnx":
        return True
    files = [other.precision for other, _ in pairs if other.is_teacher and other.form == "onnx"]
    return row.is_teacher and row.provider == "torch cpu" and "fp32" not in files


def _seconds(row: Row) -> float:
    """Return how long the predictions for all texts and changes will take."""
    return 0.0 if row.single is None else row.single.p50 * TEXTS * (1 + len(CHANGES))


def _logits(
    runner: Runner, examples: Examples, chosen: np.ndarray, *, change: str | None, seed: int
) -> np.ndarray:
    """Compute logits (n, C) of the chosen texts (n,), after a change or without one."""
    logits = []
    for index in chosen.tolist():
        texts = _column(examples.texts, index, change, seed)
        pairs = None
        if examples.pairs is not None:
            pairs = _column(examples.pairs, index, change, seed + 1)
        logits.append(np.asarray(runner.run(runner.encode(texts, pairs))))
    return np.concatenate(logits)


def _column(texts: Sequence[str], index: int, change: str | None, seed: int) -> list[str]:
    return [texts[index] if change is None else changed(change, texts[index], seed, index)]


def _robustness(spec: TaskSpec, change: str, before: np.ndarray, after: np.ndarray) -> Robustness:
    if spec.kind == "regression":
        numbers = [metrics.decide(spec, logits) for logits in (before, after)]
        moved = float(np.abs(numbers[1] - numbers[0]).mean())
        return Robustness(change, len(before), moved, None, None)
    count = int((~same_label(spec, before, after)).sum())
    return Robustness(change, len(before), count / len(before), *share_interval(count, len(before)))
