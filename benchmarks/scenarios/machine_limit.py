"""How far from the machine: each subject's time as a multiple of a lower bound."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from time import perf_counter

import numpy as np
from kdedge.benchmarks.graph_cost import Cost, total_cost
from kdedge.benchmarks.machine_peaks import Peaks, copy_speed, measure_peaks
from kdedge.benchmarks.onnx_profile import NodeRun, profile_runs
from kdedge.benchmarks.scenarios.series import ScenarioResults, Series
from kdedge.benchmarks.scenarios.workload import Workload
from kdedge.benchmarks.subjects import Subject
from kdedge.benchmarks.work import take

from kdedge.evaluation.timing import TimingPlan, Work, interleave, representative
from kdedge.runtime import Bundle
from kdedge.runtime.session import PROVIDERS

TEXTS = 32
OPERATOR = "operator "
"""Prefix of `Series.part` for the time of one operator."""

COUNTED = ("fp32", "int8", "bytes")

PROFILED = (
    "machine: the profiler lengthens short operators, so an operator's share of the time is not"
    " exact"
)
ONLY_ONNX = "machine: only ONNX files on the CPU have a bound"
SEVERAL_THREADS = "machine: the bound is that of one core divided by {} threads"


def machine_limit(workload: Workload) -> ScenarioResults:
    """Measure the peaks of one core, count operations, and profile the operators."""
    subjects = _bounded_subjects(workload)
    if not subjects:
        return ScenarioResults(notes=(ONLY_ONNX,))
    chosen = representative(workload.examples.lengths, TEXTS, workload.options.seed)
    items = [take(workload.examples, [index]) for index in chosen]
    workload.progress.start("machine", len(subjects) + 1)
    peaks = measure_peaks()
    series = []
    for name, value in asdict(peaks).items():
        series.append(Series("machine", "", np.array([value]), part=name, unit="1/s"))
    workload.progress.advance(1, "peaks of one core")
    works: dict[str, Work] = {}
    for number, (key, subject) in enumerate(subjects.items(), 2):
        assert subject.runner is not None
        encoded = [subject.runner.encode(*item) for item in items]
        works[key] = _model_work(subject, encoded)
        series += _counted(key, _profile(subject, encoded), peaks, workload.options.threads)
        workload.progress.advance(number, key)
    workload.progress.finish()
    series += _timed(works, workload)
    notes = [PROFILED]
    if len(subjects) < len(workload.subjects):
        notes.append(ONLY_ONNX)
    if workload.options.threads > 1:
        notes.append(SEVERAL_THREADS.format(workload.options.threads))
    return ScenarioResults(tuple(series), tuple(notes))


def _bounded_subjects(workload: Workload) -> dict[str, Subject]:
    """Return the ONNX files on the CPU, for which a bound can be computed."""
    found = {}
    for key, subject in workload.subjects.items():
        if subject.form == "onnx" and subject.provider == PROVIDERS["cpu"] and subject.job:
            found[key] = subject
    return found


def _model_work(subject: Subject, encoded: Sequence[Mapping[str, np.ndarray]]) -> Work:
    """Time the model without tokenization, because the bound has none."""
    assert subject.runner is not None
    run = subject.runner.run

    def work(item: int) -> tuple[float, ...]:
        start = perf_counter()
        run(encoded[item])
        return (perf_counter() - start,)

    return work


def _profile(subject: Subject, encoded: Sequence[Mapping[str, np.ndarray]]) -> list[list[NodeRun]]:
    assert subject.job is not None and subject.provider is not None
    bundle = Bundle.open(subject.job["folder"])
    graph = bundle.contents[bundle.manifest.precisions[subject.job["precision"]]]
    return profile_runs(graph, subject.provider, subject.job["threads"], encoded)


def _counted(
    key: str, runs: Sequence[Sequence[NodeRun]], peaks: Peaks, threads: int
) -> list[Series]:
    """Return each text's counts and bound, and its time in each operator."""
    costs = [total_cost(nodes) for nodes in runs]
    # The weights may fit into a cache, so they are read as fast as a copy of their size.
    bandwidth = max(copy_speed(max(cost.bytes for cost in costs)), peaks.memory)
    bounds = np.array([cost.bound(peaks, bandwidth) for cost in costs]) / threads
    series = [Series("machine", key, bounds, part="bound")]
    for name in COUNTED:
        series.append(_count_series(key, costs, name))
    seconds: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(len(runs)))
    for number, nodes in enumerate(runs):
        for node in nodes:
            seconds[node.operator][number] += node.seconds
    for operator, values in seconds.items():
        series.append(Series("machine", key, values, part=OPERATOR + operator))
    return series


def _count_series(key: str, costs: Sequence[Cost], name: str) -> Series:
    values = np.array([getattr(cost, name) for cost in costs], dtype=float)
    return Series("machine", key, values, part=name, unit="1")


def _timed(works: Mapping[str, Work], workload: Workload) -> list[Series]:
    """Time the same texts in turns; keep the median of each text, in the order of the bounds."""
    count = min(TEXTS, len(workload.examples))
    plan = TimingPlan(seconds=workload.seconds, seed=workload.options.seed, visit=count, at_most=50)
    timed = interleave(works, count, plan, title="machine", progress=workload.progress)
    series = []
    for key, parts in timed.items():
        medians = np.median(np.array(parts[0].rounds), axis=0)
        series.append(Series("machine", key, medians, part="time"))
    return series
