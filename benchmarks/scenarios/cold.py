"""Cold start: how long a new process takes to its first answer."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from kdedge.benchmarks.child import CHILD_FAULTS, items_of, loader_of, run_child
from kdedge.benchmarks.scenarios.series import ScenarioResults, Series
from kdedge.benchmarks.scenarios.workload import Workload

STARTS = 5
"""New processes of each subject."""

PARTS = ("start", "load", "answer", "total")
"""Parts of a start: interpreter and imports; files to a model; first text; all three."""

WARM_FILES = (
    "cold start: the system has the files in memory already; after a reboot the first start"
    " takes longer"
)


def cold(workload: Workload) -> ScenarioResults:
    """Start every subject in new processes, in turns."""
    text, pair = workload.singles[0]
    jobs = workload.jobs
    values: dict[str, list[list[float]]] = {key: [] for key in jobs}
    failed: dict[str, None] = {}
    workload.progress.start("cold start", STARTS * len(jobs))
    for number in range(STARTS):
        for key, job in jobs.items():
            try:
                seconds = run_child(__name__, job, text, pair)
                values[key].append([seconds[part] for part in PARTS])
            except (*CHILD_FAULTS, KeyError):
                failed[key] = None
        workload.progress.advance((number + 1) * len(jobs), f"start {number + 1} of {STARTS}")
    workload.progress.finish()
    series = []
    for key, starts in values.items():
        for column, part in enumerate(PARTS):
            if starts and key not in failed:
                series.append(Series("cold", key, np.array(starts)[:, column], part=part))
    notes = [f"{key}: cold start not measured: the process ended early" for key in failed]
    return ScenarioResults(tuple(series), (WARM_FILES, *notes))


def main(work: Mapping[str, Any]) -> None:
    """Run in the child: load the subject, classify one text, and write the seconds."""
    loader = loader_of(work["job"])
    imported = time.perf_counter()
    answer = loader(work["job"])
    loaded = time.perf_counter()
    answer(*items_of(work)[0])
    answered = time.perf_counter()
    seconds = {
        "start": imported - work["spawned"],
        "load": loaded - imported,
        "answer": answered - loaded,
        "total": answered - work["spawned"],
    }
    sys.stdout.write(json.dumps(seconds) + "\n")
