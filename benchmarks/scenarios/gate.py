"""Gate: single texts in several new processes, for a comparison with a later bench.

Two processes that run the same file differ by a few percent: so several processes are timed. A
machine is faster or slower from one hour to the next: so each process also times a yardstick, a
fixed piece of numpy work, in turns with the texts. `against.py` compares two results of this
scenario.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any

import numpy as np
from kdedge.benchmarks.child import CHILD_FAULTS, Answer, items_of, loader_of, run_child
from kdedge.benchmarks.equivalence.flips import is_right
from kdedge.benchmarks.scenarios.series import ScenarioResults, Series
from kdedge.benchmarks.scenarios.workload import Workload
from kdedge.benchmarks.subjects import Subject
from kdedge.benchmarks.work import Batch, take

from kdedge.evaluation.timing import representative

PROCESSES = 10
"""Processes of each subject.

The interval of two results of 10 leaves out the 16 largest and smallest of 100 differences, so one
disturbed process on each side does not widen it.
"""

TEXTS = 16
"""Texts that every process classifies in every round."""

MIN_ROUNDS, MAX_ROUNDS = 20, 60
"""Rounds of each process: a low quantile of 20 times is near the time without interruptions."""

YARDSTICK_SIZE = 192
"""Rows and columns of the yardstick's matrices: about the weights of a small layer."""


def gate(workload: Workload) -> ScenarioResults:
    """Time every subject in new processes, in turns, and store which predictions are right."""
    chosen = representative(workload.examples.lengths, TEXTS, workload.options.seed)
    texts, pairs = take(workload.examples, chosen)
    jobs = workload.jobs
    more = {"seconds": workload.seconds / (PROCESSES * max(1, len(jobs)))}
    series: list[Series] = []
    failed: dict[str, None] = {}
    workload.progress.start("gate", PROCESSES)
    for process in range(PROCESSES):
        for key, job in jobs.items():
            try:
                document = run_child(__name__, job, texts, pairs, more)
                for part in ("text", "yardstick"):
                    values = np.array(document[part], dtype=float)
                    series.append(Series("gate", key, values, at=process, part=part))
            except (*CHILD_FAULTS, KeyError):
                failed[key] = None
        workload.progress.advance(process + 1, f"process {process + 1} of {PROCESSES}")
    workload.progress.finish()
    measured = [each for each in series if each.subject not in failed]
    for key, subject in workload.subjects.items():
        right = _right_texts(workload, subject)
        if right is not None:
            measured.append(Series("gate", key, right, part="right", unit="1"))
    notes = [f"{key}: not timed for a comparison: a process ended early" for key in failed]
    return ScenarioResults(tuple(measured), tuple(notes))


def main(work: Mapping[str, Any]) -> None:
    """Run in the child: load the subject, time the texts, and write the seconds."""
    answer = loader_of(work["job"])(work["job"])
    sys.stdout.write(json.dumps(time_rounds(answer, items_of(work), work["seconds"])) + "\n")


def time_rounds(answer: Answer, items: list[Batch], seconds: float) -> dict[str, list[float]]:
    """Time rounds of all texts and the yardstick.

    Returns:
        `text`: seconds of each text, round after round. `yardstick`: seconds of each round.
    """
    measure = yardstick()
    for texts, pairs in items:
        answer(texts, pairs)
        measure()
    gc.disable()
    text_seconds: list[float] = []
    yard_seconds: list[float] = []
    end = perf_counter() + seconds
    while _continues(len(yard_seconds), perf_counter() < end):
        yard_seconds.append(measure())
        for texts, pairs in items:
            start = perf_counter()
            answer(texts, pairs)
            text_seconds.append(perf_counter() - start)
    gc.enable()
    return {"text": text_seconds, "yardstick": yard_seconds}


def yardstick() -> Callable[[], float]:
    """Return a function that does a fixed piece of work and returns its seconds."""
    generator = np.random.default_rng(0)
    matrix = generator.standard_normal((YARDSTICK_SIZE, YARDSTICK_SIZE), dtype=np.float32)

    def measure() -> float:
        start = perf_counter()
        matrix @ matrix
        matrix @ matrix
        return perf_counter() - start

    return measure


def _continues(rounds: int, time_left: bool) -> bool:
    return rounds < MIN_ROUNDS or (time_left and rounds < MAX_ROUNDS)


def _right_texts(workload: Workload, subject: Subject) -> np.ndarray | None:
    """Return 1 for each text whose label, or set of labels, is right, else 0; None without labels.

    None too if the task's metric is not the share of such texts: on rare labels, F1 and Matthews'
    correlation may fall although as many texts are right.
    """
    labels = workload.examples.labels
    if workload.spec is None or workload.spec.metric != "accuracy":
        return None
    if subject.logits is None or labels is None:
        return None
    return is_right(workload.spec, subject.logits, labels).astype(float)
