"""Run the chosen scenarios one after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kdedge.benchmarks.examples import Examples
from kdedge.benchmarks.options import Options
from kdedge.benchmarks.scenarios.cold import cold
from kdedge.benchmarks.scenarios.energy import energy
from kdedge.benchmarks.scenarios.gate import gate
from kdedge.benchmarks.scenarios.lengths import lengths
from kdedge.benchmarks.scenarios.load import load
from kdedge.benchmarks.scenarios.machine_limit import machine_limit
from kdedge.benchmarks.scenarios.offline import offline
from kdedge.benchmarks.scenarios.series import ScenarioResults, joined
from kdedge.benchmarks.scenarios.stream import stream
from kdedge.benchmarks.scenarios.threads import threads
from kdedge.benchmarks.scenarios.workload import Workload
from kdedge.benchmarks.subjects import Subject

from kdedge.run.progress import Progress
from kdedge.runtime.spec import TaskSpec

FUNCTIONS: dict[str, Callable[[Workload], ScenarioResults]] = {
    "stream": stream,
    "offline": offline,
    "load": load,
    "cold": cold,
    "threads": threads,
    "lengths": lengths,
    "energy": energy,
    "gate": gate,
    "machine": machine_limit,
}
"""Scenario -> function that measures it; every bench measures `single` itself."""


def run_scenarios(
    subjects: Sequence[Subject],
    examples: Examples,
    spec: TaskSpec,
    options: Options,
    progress: Progress,
) -> ScenarioResults:
    """Measure the scenarios in `options.scenarios`, with the subjects that can run."""
    running = {subject.key: subject for subject in subjects if subject.runner is not None}
    workload = Workload(running, examples, options, progress, spec)
    chosen = [FUNCTIONS[name] for name in options.scenarios if name in FUNCTIONS]
    if not running:
        return ScenarioResults()
    return joined([measure(workload) for measure in chosen])
