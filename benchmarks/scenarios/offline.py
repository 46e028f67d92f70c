"""Offline: how many texts per second a subject classifies, by batch size."""

from __future__ import annotations

from kdedge.benchmarks.scenarios.series import ScenarioResults, Series
from kdedge.benchmarks.scenarios.workload import Workload
from kdedge.benchmarks.work import batch_work, full_batches

from kdedge.evaluation.timing import TimingPlan, Work, interleave

BATCH_SIZES = (1, 4, 16, 64)


def offline(workload: Workload) -> ScenarioResults:
    """Time whole batches, with tokenization; all subjects and sizes take turns."""
    sizes = sorted({*BATCH_SIZES, workload.options.batch})
    works: dict[str, Work] = {}
    conditions: dict[str, tuple[str, int]] = {}
    for size in sizes:
        batches = full_batches(workload.examples, size)
        for key, runner in workload.runners.items():
            name = f"{key} in batches of {size}"
            works[name] = _repeated(batch_work(runner, batches), len(batches))
            conditions[name] = key, size
    plan = TimingPlan(
        seconds=workload.seconds, seed=workload.options.seed, visit=1, lead_in=False, at_most=60
    )
    timed = interleave(works, plan.at_most, plan, title="offline", progress=workload.progress)
    series = []
    for name, parts in timed.items():
        key, size = conditions[name]
        series.append(Series("offline", key, parts[0].values, at=size))
    return ScenarioResults(tuple(series))


def _repeated(work: Work, count: int) -> Work:
    """Let a work with `count` items take any item."""
    return lambda item: work(item % count)
