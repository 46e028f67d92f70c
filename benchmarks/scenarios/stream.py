"""Single stream: at least 1,024 queries one after another, as in MLPerf Inference."""

from __future__ import annotations

from kdedge.benchmarks.scenarios.mlperf import MIN_QUERIES, queries_for
from kdedge.benchmarks.scenarios.series import ScenarioResults, Series
from kdedge.benchmarks.scenarios.workload import Workload
from kdedge.benchmarks.work import single_work

from kdedge.evaluation.timing import VISIT, TimingPlan, interleave

PERCENTILES = (0.9, 0.99)


def stream(workload: Workload) -> ScenarioResults:
    """Time single texts of all subjects in turns, enough of them for a bound of p99."""
    needed = max(MIN_QUERIES, *[queries_for(percentile) for percentile in PERCENTILES])
    rounds = -(-needed // VISIT)
    items = workload.singles
    timed = interleave(
        {key: single_work(runner, items) for key, runner in workload.runners.items()},
        len(items),
        TimingPlan(seed=workload.options.seed, visit=VISIT, rounds=rounds),
        title="single stream",
        progress=workload.progress,
    )
    series = [Series("stream", key, parts[0].values) for key, parts in timed.items()]
    return ScenarioResults(tuple(series))
