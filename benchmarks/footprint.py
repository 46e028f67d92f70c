"""Load each subject in its own process and measure seconds to load and resident memory.

A process shows its libraries and its own subject, but not the other subjects.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kdedge.benchmarks.child import CHILD_FAULTS, Job, Loader, items_of, loader_of, run_child

from kdedge.run.progress import SILENT, Progress

ENDED_EARLY = "memory and load time not measured: the process ended early"


@dataclass(frozen=True)
class Footprint:
    """What one process needed to load a subject and to classify a few texts.

    Attributes:
        import_s: Seconds to import the libraries.
        load_s: Seconds from files to a model that is ready.
        peak_mb: Peak resident memory of the process; None if the system does not report it.
        problem: Why nothing was measured, or "".
        resident_mb: Resident memory after the texts; None if the system does not report it.
    """

    import_s: float | None = None
    load_s: float | None = None
    peak_mb: float | None = None
    problem: str = ""
    resident_mb: float | None = None


NOT_MEASURED = Footprint()


def footprints(
    jobs: Mapping[str, Job],
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    progress: Progress = SILENT,
) -> dict[str, Footprint]:
    """Measure every job, by key; a job that fails gets a `problem` and raises nothing."""
    measured: dict[str, Footprint] = {}
    progress.start("memory and load time", len(jobs))
    for key, job in jobs.items():
        try:
            measured[key] = Footprint(**run_child(__name__, job, texts, pairs))
        except CHILD_FAULTS:
            measured[key] = Footprint(problem=ENDED_EARLY)
        progress.advance(len(measured), key)
    progress.finish()
    return measured


def main(work: dict[str, Any]) -> None:
    """Run in the child: import the libraries, measure the job and write the footprint."""
    start = time.perf_counter()
    loader = loader_of(work["job"])
    import_s = time.perf_counter() - start
    footprint = measure(work["job"], loader, import_s, work)
    sys.stdout.write(json.dumps(asdict(footprint)) + "\n")


def measure(job: Job, loader: Loader, import_s: float, work: Mapping[str, Any]) -> Footprint:
    """Load one subject, classify the texts, and read the memory of this process."""
    try:
        start = time.perf_counter()
        answer = loader(job)
        load_s = time.perf_counter() - start
        for texts, pairs in items_of(work):
            answer(texts, pairs)
        return Footprint(import_s, load_s, peak_mb(), resident_mb=_mb_from_proc("VmRSS:"))
    except Exception as error:
        message = " ".join(str(error).split())[:200]
        return Footprint(
            problem=f"memory and load time not measured: {type(error).__name__}: {message}"
        )


def peak_mb() -> float | None:
    """Return the peak resident memory of this process, in MiB."""
    # On Linux ru_maxrss survives exec, so a child would report its parent's peak: read /proc first.
    peak = _mb_from_proc("VmHWM:")
    if peak is not None:
        return peak
    try:
        import resource
    except ImportError:
        return None
    units_per_mib = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / units_per_mib


def _mb_from_proc(name: str) -> float | None:
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return None
    for line in status.splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    return None
