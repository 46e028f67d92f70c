"""Load each subject in its own process and measure seconds to load and peak memory.

A process shows its libraries and its own subject, but not the other subjects. Its last line on
stdout is a JSON document.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import kdedge
from kdedge.run.progress import SILENT, Progress

TIMEOUT = 600

LOADER = """
import json, sys
work = json.loads(sys.stdin.read())
sys.path.extend(entry for entry in work["sys_path"] if entry not in sys.path)
import kdedge
kdedge.__path__.extend(entry for entry in work["package_path"] if entry not in kdedge.__path__)
from kdedge.benchmarks.footprint import main
main(work)
"""
"""The child imports kdedge from where its parent did.

In a checkout export/ and benchmarks/ are not inside kdedge/.
"""

ENDED_EARLY = "memory and load time not measured: the process ended early"

Job = Mapping[str, Any]
"""What to load; see `Subject.job`."""

Answer = Callable[[list[str], list[str] | None], Any]
Loader = Callable[[Job], Answer]


@dataclass(frozen=True)
class Footprint:
    """What one process needed to load a subject and to classify a few texts.

    Attributes:
        import_s: Seconds to import the libraries.
        load_s: Seconds from files to a model that is ready.
        peak_mb: Peak resident memory of the process; None if the system does not report it.
        problem: Why nothing was measured, or "".
    """

    import_s: float | None = None
    load_s: float | None = None
    peak_mb: float | None = None
    problem: str = ""


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
        measured[key] = _run_child(job, texts, pairs)
        progress.advance(len(measured), key)
    progress.finish()
    return measured


def _run_child(job: Job, texts: Sequence[str], pairs: Sequence[str] | None) -> Footprint:
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(job["threads"]),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }
    try:
        done = subprocess.run(
            # -P: import nothing from the current folder.
            [sys.executable, "-P", "-c", LOADER],
            input=json.dumps(_work(job, texts, pairs)),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            env=environment,
            timeout=TIMEOUT,
            check=True,
        )
        return Footprint(**json.loads(done.stdout.splitlines()[-1]))
    except (subprocess.SubprocessError, ValueError, TypeError, IndexError):
        return Footprint(problem=ENDED_EARLY)


def _work(job: Job, texts: Sequence[str], pairs: Sequence[str] | None) -> dict[str, Any]:
    """Build the JSON document that the child reads from stdin."""
    return {
        "job": dict(job),
        "texts": list(texts),
        "pairs": None if pairs is None else list(pairs),
        "sys_path": [entry or os.getcwd() for entry in sys.path],
        "package_path": list(map(str, kdedge.__path__)),
    }


def main(work: dict[str, Any]) -> None:
    """Run in the child: import the libraries, measure the job and write the footprint."""
    start = time.perf_counter()
    loader = _torch_loader() if work["job"]["form"] == "torch" else _onnx_loader()
    import_s = time.perf_counter() - start
    footprint = measure(work["job"], loader, import_s, work)
    sys.stdout.write(json.dumps(asdict(footprint)) + "\n")


def measure(job: Job, loader: Loader, import_s: float, work: Mapping[str, Any]) -> Footprint:
    """Load one subject, classify the texts, and read the memory of this process."""
    try:
        start = time.perf_counter()
        answer = loader(job)
        load_s = time.perf_counter() - start
        for i, text in enumerate(work["texts"]):
            answer([text], None if work["pairs"] is None else [work["pairs"][i]])
        return Footprint(import_s, load_s, peak_mb())
    except Exception as error:
        message = " ".join(str(error).split())[:200]
        return Footprint(
            problem=f"memory and load time not measured: {type(error).__name__}: {message}"
        )


def peak_mb() -> float | None:
    """Return the peak resident memory of this process, in MiB."""
    # On Linux ru_maxrss survives exec, so a child would report its parent's peak: read /proc first.
    peak = _peak_from_proc()
    if peak is not None:
        return peak
    try:
        import resource
    except ImportError:
        return None
    units_per_mib = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / units_per_mib


def _peak_from_proc() -> float | None:
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return None
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return None


def _onnx_loader() -> Loader:
    from kdedge.runtime import Classifier

    def load(job: Job) -> Answer:
        classifier = Classifier.load(
            job["folder"],
            precision=job["precision"],
            provider=job["provider"],
            threads=job["threads"],
        )
        return lambda texts, pairs: classifier.run(classifier.encode(texts, pairs))

    return load


def _torch_loader() -> Loader:
    from kdedge.benchmarks.torch_runner import load_runner

    def load(job: Job) -> Answer:
        runner = load_runner(job)
        return lambda texts, pairs: runner.run(runner.encode(texts, pairs))

    return load
