"""Load each subject in its own process and measure seconds to load and peak memory.

One process imports the libraries of a form (torch, ONNX Runtime) and forks for each subject. Each
fork shows the libraries and its own subject, but not the other subjects. Each job answers with
one line of JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    for keys in _groups(jobs):
        group = [jobs[key] for key in keys]
        for key, footprint in zip(keys, _run_child(group, texts, pairs), strict=True):
            measured[key] = footprint
            progress.advance(len(measured), key)
    progress.finish()
    return measured


def _groups(jobs: Mapping[str, Job]) -> list[list[str]]:
    """Group the keys that one process can measure: same libraries, same threads."""
    if not hasattr(os, "fork"):
        return [[key] for key in jobs]
    groups: dict[tuple[Any, ...], list[str]] = {}
    for key, job in jobs.items():
        # CUDA does not survive a fork, so a CUDA job gets its own process.
        on_cuda = "cuda" in (job.get("device"), job.get("provider"))
        own_process = key if on_cuda else ""
        groups.setdefault((job["form"], job["threads"], own_process), []).append(key)
    return list(groups.values())


def _run_child(
    jobs: Sequence[Job], texts: Sequence[str], pairs: Sequence[str] | None
) -> Iterator[Footprint]:
    """Yield one footprint for each job, as soon as it is measured."""
    with _start_child(threads=jobs[0]["threads"]) as child:
        assert child.stdin is not None and child.stdout is not None
        clock = threading.Timer(TIMEOUT, child.kill)
        clock.start()
        try:
            child.stdin.write(json.dumps(_work(jobs, texts, pairs)))
            child.stdin.close()
            for _ in jobs:
                yield _parse(child.stdout.readline())
        finally:
            clock.cancel()
            child.kill()


def _work(jobs: Sequence[Job], texts: Sequence[str], pairs: Sequence[str] | None) -> dict[str, Any]:
    """Build the JSON document that the child reads from stdin."""
    return {
        "jobs": [dict(job) for job in jobs],
        "texts": list(texts),
        "pairs": None if pairs is None else list(pairs),
        "sys_path": [entry or os.getcwd() for entry in sys.path],
        "package_path": list(map(str, kdedge.__path__)),
    }


def _start_child(threads: int) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }
    return subprocess.Popen(
        # -P: import nothing from the current folder.
        [sys.executable, "-P", "-c", LOADER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        env=environment,
    )


def _parse(line: str) -> Footprint:
    try:
        return Footprint(**json.loads(line))
    except (ValueError, TypeError):
        return Footprint(problem=ENDED_EARLY)


def main(work: dict[str, Any]) -> None:
    """Run in the child: import the libraries, then fork once for each job."""
    start = time.perf_counter()
    loader = _torch_loader() if work["jobs"][0]["form"] == "torch" else _onnx_loader()
    import_s = time.perf_counter() - start
    if len(work["jobs"]) == 1:
        emit(measure(work["jobs"][0], loader, import_s, work))
        return
    for job in work["jobs"]:
        child = os.fork()
        if child == 0:
            emit(measure(job, loader, import_s, work))
            os._exit(0)
        if os.waitpid(child, 0)[1] != 0:
            emit(Footprint(problem=ENDED_EARLY))


def emit(footprint: Footprint) -> None:
    """Write one footprint to stdout."""
    sys.stdout.write(json.dumps(asdict(footprint)) + "\n")
    sys.stdout.flush()


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
