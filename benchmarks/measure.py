"""From contenders to rows: each weighed alone, all timed together, every answer scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from kdedge.benchmarks.examples import Examples
from kdedge.benchmarks.footprint import NOT_WEIGHED, Footprint, footprints
from kdedge.benchmarks.report import Row
from kdedge.benchmarks.retention import Retention
from kdedge.benchmarks.subjects import Runner, Subject

from kdedge.evaluation.timing import VISIT, TimingPlan, Timings, interleave, representative
from kdedge.run.progress import Progress
from kdedge.runtime.metrics import score
from kdedge.runtime.spec import TaskSpec

SAMPLE = 400
"""Single texts that rounds walk through."""

SINGLE_SHARE = 0.65
"""Of the time for timing; the rest is for batches."""


@dataclass(frozen=True)
class Options:
    """How to measure.

    providers: execution providers of ONNX Runtime, each really used or an error. threads: of every subject.
    seconds: for all timing together; repeats: single texts of each subject, whatever time they take.
    teacher: whether the teacher runs. target: the share of the teacher's metric that counts as kept.
    """

    providers: tuple[str, ...] = ("cpu",)
    threads: int = 1
    seconds: float = 15.0
    repeats: int | None = None
    batch: int = 32
    teacher: bool = True
    target: float = 0.99
    seed: int = 0


DEFAULTS = Options()


def measure_subjects(
    contenders: Sequence[Subject],
    examples: Examples,
    spec: TaskSpec,
    *,
    keep: Callable[[np.ndarray], Retention] | None,
    options: Options,
    progress: Progress,
) -> list[Row]:
    """One row for each contender: its quality on `examples`, its weight, and its times beside all others.

    keep: retention of logits (N, C); None where there is no teacher to compare with.
    """
    weights = _weighed(contenders, examples, progress)
    runners = {c.key: c.runner for c in contenders if c.runner is not None}
    singles = _time_singles(runners, examples, options, progress)
    batches = _time_batches(runners, examples, options, progress)
    rows = []
    for contender in contenders:
        single, model = singles.get(contender.key, (None, None))
        logits, labels = contender.logits, examples.labels
        rows.append(
            Row(
                subject=contender.subject,
                kind=contender.kind,
                form=contender.form,
                precision=contender.precision,
                provider=contender.provider,
                threads=options.threads if contender.runner else None,
                batch=options.batch if contender.runner else None,
                value=None
                if logits is None or labels is None
                else score(spec.metric, spec.kind, logits, labels),
                retention=None
                if logits is None or labels is None or keep is None
                else keep(logits),
                single=single,
                model=model,
                batched=batches.get(contender.key),
                bytes=contender.bytes,
                footprint=weights.get(contender.key, NOT_WEIGHED),
                notes=contender.notes,
            )
        )
    return rows


def _weighed(
    contenders: Sequence[Subject], examples: Examples, progress: Progress
) -> dict[str, Footprint]:
    """Memory and load time, each subject in a process of its own."""
    jobs = {c.key: c.job for c in contenders if c.job is not None}
    chosen = representative(_lengths(examples), 8, seed=0)
    texts = [examples.texts[i] for i in chosen]
    pairs = [examples.pairs[i] for i in chosen] if examples.pairs is not None else None
    return footprints(jobs, texts, pairs, progress)


def _time_singles(
    runners: Mapping[str, Runner], examples: Examples, options: Options, progress: Progress
) -> dict[str, tuple[Timings, Timings]]:
    """For each subject the seconds of single texts, with tokenization and without."""
    chosen = representative(_lengths(examples), SAMPLE, options.seed)
    texts = [[examples.texts[i]] for i in chosen]
    pairs = [None if examples.pairs is None else [examples.pairs[i]] for i in chosen]

    def work_of(runner: Runner) -> Callable[[int], tuple[float, ...]]:
        def work(item: int) -> tuple[float, ...]:
            start = perf_counter()
            encoded = runner.encode(texts[item], pairs[item])
            middle = perf_counter()
            runner.run(encoded)
            end = perf_counter()
            return end - start, end - middle

        return work

    works = {key: work_of(runner) for key, runner in runners.items()}
    timed = interleave(
        works,
        len(texts),
        TimingPlan(
            seconds=options.seconds * SINGLE_SHARE,
            seed=options.seed,
            visit=-(-options.repeats // -(-options.repeats // VISIT)) if options.repeats else None,
            rounds=-(-options.repeats // VISIT) if options.repeats else None,
        ),
        title="timing single texts",
        progress=progress,
    )
    return {key: (parts[0], parts[1]) for key, parts in timed.items()}


def _time_batches(
    runners: Mapping[str, Runner], examples: Examples, options: Options, progress: Progress
) -> dict[str, Timings]:
    """For each subject the seconds of whole batches in file order, tokenization included."""
    size = options.batch
    starts = range(0, max(1, len(examples) - size + 1), size)
    places = [[(start + i) % len(examples) for i in range(size)] for start in starts][:16]
    batches = [
        (
            [examples.texts[i] for i in place],
            None if examples.pairs is None else [examples.pairs[i] for i in place],
        )
        for place in places
    ]

    def work_of(runner: Runner) -> Callable[[int], tuple[float, ...]]:
        def work(item: int) -> tuple[float, ...]:
            start = perf_counter()
            runner.run(runner.encode(*batches[item]))
            return (perf_counter() - start,)

        return work

    works = {key: work_of(runner) for key, runner in runners.items()}
    seconds = options.seconds * (1 - SINGLE_SHARE)
    timed = interleave(
        works,
        len(batches),
        TimingPlan(seconds=seconds, seed=options.seed, visit=1, lead_in=False, at_most=40),
        title="timing batches",
        progress=progress,
    )
    return {key: parts[0] for key, parts in timed.items()}


def _lengths(examples: Examples) -> np.ndarray:
    """(N,) characters of each example, both texts of a pair together."""
    lengths = np.array([len(text) for text in examples.texts])
    return (
        lengths
        if examples.pairs is None
        else lengths + np.array([len(text) for text in examples.pairs])
    )
