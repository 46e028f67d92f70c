"""Measure subjects: memory of each alone, times of all together, and the score of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from kdedge.benchmarks.examples import Examples
from kdedge.benchmarks.footprint import NOT_MEASURED, Footprint, footprints
from kdedge.benchmarks.options import Options
from kdedge.benchmarks.retention import Retention
from kdedge.benchmarks.row import Row
from kdedge.benchmarks.subjects import Runner, Subject
from kdedge.benchmarks.work import batch_work, full_batches, single_work, take

from kdedge.evaluation.sanity import only_prediction
from kdedge.evaluation.score_interval import score_interval
from kdedge.evaluation.timing import VISIT, TimingPlan, Timings, interleave, representative
from kdedge.run.progress import Progress
from kdedge.runtime.metrics import score
from kdedge.runtime.spec import TaskSpec

SAMPLE = 400
"""Largest number of different texts that are timed one by one."""

SINGLE_SHARE = 0.65
"""Share of the time for single texts; the rest is for batches."""

FOOTPRINT_TEXTS = 8

RetentionOf = Callable[[np.ndarray], Retention]
"""Computes retention from logits (N, C)."""


def measure_subjects(
    subjects: Sequence[Subject],
    examples: Examples,
    spec: TaskSpec,
    *,
    retention_of: RetentionOf | None,
    options: Options,
    progress: Progress,
) -> list[Row]:
    """Measure every subject; return one row for each.

    Args:
        subjects: What to measure.
        examples: Texts, and labels if quality can be measured.
        spec: The task.
        retention_of: None if there is no teacher to compare with.
        options: How to measure.
        progress: Receives messages.
    """
    memory = _footprints(subjects, examples, progress)
    runners = {subject.key: subject.runner for subject in subjects if subject.runner is not None}
    singles = _time_singles(runners, examples, options, progress)
    batches = _time_batches(runners, examples, options, progress)
    rows = []
    for subject in subjects:
        value, retention = _quality(subject, examples, spec, retention_of)
        interval = _interval(subject, examples, spec, options.seed)
        single, model = singles.get(subject.key, (None, None))
        row = Row(
            subject=subject.subject,
            kind=subject.kind,
            form=subject.form,
            precision=subject.precision,
            provider=subject.provider,
            threads=options.threads if subject.runner else None,
            batch=options.batch if subject.runner else None,
            value=value,
            interval=interval,
            retention=retention,
            single=single,
            model=model,
            batched=batches.get(subject.key),
            bytes=subject.bytes,
            footprint=memory.get(subject.key, NOT_MEASURED),
            notes=subject.notes,
            nodes=subject.nodes,
            only_prediction=_only_prediction(subject, spec),
        )
        rows.append(row)
    return rows


def timed_examples(examples: Examples, options: Options) -> np.ndarray:
    """Return the rows that are timed one by one, in the order of their times."""
    return representative(examples.lengths, SAMPLE, options.seed)


def split_repeats(repeats: int) -> tuple[int, int]:
    """Split `repeats` into rounds and texts per visit; their product is exactly `repeats`."""
    visit = max(size for size in range(1, VISIT + 1) if repeats % size == 0)
    return repeats // visit, visit


def _quality(
    subject: Subject, examples: Examples, spec: TaskSpec, retention_of: RetentionOf | None
) -> tuple[float | None, Retention | None]:
    """Compute score and retention; None without logits, labels or teacher."""
    if subject.logits is None or examples.labels is None:
        return None, None
    value = score(spec, subject.logits, examples.labels)
    if retention_of is None:
        return value, None
    return value, retention_of(subject.logits)


def _interval(
    subject: Subject, examples: Examples, spec: TaskSpec, seed: int
) -> tuple[float, float] | None:
    """Compute the 95 % interval of the score; None without logits or labels."""
    if subject.logits is None or examples.labels is None:
        return None
    return score_interval(spec, subject.logits, examples.labels, seed=seed)


def _only_prediction(subject: Subject, spec: TaskSpec) -> str | None:
    return None if subject.logits is None else only_prediction(spec, subject.logits)


def _footprints(
    subjects: Sequence[Subject], examples: Examples, progress: Progress
) -> dict[str, Footprint]:
    """Measure memory and load time, each subject in its own process."""
    jobs = {subject.key: subject.job for subject in subjects if subject.job is not None}
    chosen = representative(examples.lengths, FOOTPRINT_TEXTS, seed=0)
    texts, pairs = take(examples, chosen)
    return footprints(jobs, texts, pairs, progress)


def _time_singles(
    runners: Mapping[str, Runner], examples: Examples, options: Options, progress: Progress
) -> dict[str, tuple[Timings, Timings]]:
    """Time single texts: with tokenization, and without."""
    items = [take(examples, [index]) for index in timed_examples(examples, options)]
    rounds, visit = None, None
    if options.repeats:
        rounds, visit = split_repeats(options.repeats)
    timed = interleave(
        {key: single_work(runner, items) for key, runner in runners.items()},
        len(items),
        TimingPlan(
            seconds=options.seconds * SINGLE_SHARE,
            seed=options.seed,
            visit=visit,
            rounds=rounds,
        ),
        title="timing single texts",
        progress=progress,
    )
    return {key: (parts[0], parts[1]) for key, parts in timed.items()}


def _time_batches(
    runners: Mapping[str, Runner], examples: Examples, options: Options, progress: Progress
) -> dict[str, Timings]:
    """Time whole batches in file order, with tokenization."""
    batches = full_batches(examples, options.batch)
    timed = interleave(
        {key: batch_work(runner, batches) for key, runner in runners.items()},
        len(batches),
        TimingPlan(
            seconds=options.seconds * (1 - SINGLE_SHARE),
            seed=options.seed,
            visit=1,
            lead_in=False,
            at_most=40,
        ),
        title="timing batches",
        progress=progress,
    )
    return {key: parts[0] for key, parts in timed.items()}
