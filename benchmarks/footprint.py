"""Loads each subject in a process of its own and tells what that took: seconds to load, megabytes at the peak.

The libraries are imported once for each form (torch, ONNX Runtime) and the process forks for each subject, which so
shows the libraries and itself, and nothing of the others. Answers come as one JSON line for each job.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
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
"""A child finds the code where its parent did: in a checkout, export/ and benchmarks/ do not lie in kdedge/."""

Job = Mapping[str, Any]


@dataclass(frozen=True)
class Footprint:
    """What one process needed to load a subject and answer a few texts.

    import_s: seconds to import the libraries; load_s: from files to a model that may answer.
    peak_mb: largest resident memory of the whole process; None where the system does not tell.
    problem: why nothing was measured, or "".
    """

    import_s: float | None = None
    load_s: float | None = None
    peak_mb: float | None = None
    problem: str = ""


NOT_WEIGHED = Footprint()


def footprints(
    jobs: Mapping[str, Job],
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    progress: Progress = SILENT,
) -> dict[str, Footprint]:
    """The footprint of every job (see Contender.job) by its key; never raises: what failed has a `problem`."""
    found: dict[str, Footprint] = {}
    progress.start("memory and load time", len(jobs))
    for group in _groups(jobs):
        for key, footprint in zip(
            group, _measured([jobs[key] for key in group], texts, pairs), strict=True
        ):
            found[key] = footprint
            progress.advance(len(found), key)
    progress.finish()
    return found


def _groups(jobs: Mapping[str, Job]) -> list[list[str]]:
    """Keys that one process may measure: those of equal libraries and threads; each alone where a process cannot fork."""
    if not hasattr(os, "fork"):
        return [[key] for key in jobs]
    groups: dict[tuple[Any, ...], list[str]] = {}
    for key, job in jobs.items():
        # CUDA does not survive a fork.
        alone = key if "cuda" in (job.get("device"), job.get("provider")) else ""
        groups.setdefault((job["form"], job["threads"], alone), []).append(key)
    return list(groups.values())


def _measured(
    jobs: Sequence[Job], texts: Sequence[str], pairs: Sequence[str] | None
) -> Iterator[Footprint]:
    """One footprint for each job, each as soon as it is there."""
    work = {
        "jobs": [dict(job) for job in jobs],
        "texts": list(texts),
        "pairs": pairs and list(pairs),
        "sys_path": [entry or os.getcwd() for entry in sys.path],
        "package_path": [str(entry) for entry in kdedge.__path__],
    }
    threads = str(jobs[0]["threads"])
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": threads,
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }
    pipe = subprocess.PIPE
    # -P: nothing is imported from the folder the user happens to stand in.
    command = [sys.executable, "-P", "-c", LOADER]
    with subprocess.Popen(
        command,
        stdin=pipe,
        stdout=pipe,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        env=environment,
    ) as child:
        assert child.stdin is not None and child.stdout is not None
        clock = threading.Timer(TIMEOUT, child.kill)
        clock.start()
        try:
            child.stdin.write(json.dumps(work))
            child.stdin.close()
            for _ in jobs:
                yield _parsed(child.stdout.readline())
        finally:
            clock.cancel()
            child.kill()


def _parsed(line: str) -> Footprint:
    try:
        return Footprint(**json.loads(line))
    except (ValueError, TypeError):
        return Footprint(problem="memory and load time not measured: the process ended early")


def main(work: dict[str, Any]) -> None:
    """Be the child: import the libraries, then one fork and one line for each job."""
    start = time.perf_counter()
    load = _torch if work["jobs"][0]["form"] == "torch" else _onnx
    loader = load()
    import_s = time.perf_counter() - start
    for job in work["jobs"]:
        if len(work["jobs"]) == 1 or not hasattr(os, "fork"):
            _say(_weigh(job, loader, import_s, work))
            continue
        child = os.fork()
        if child == 0:
            _say(_weigh(job, loader, import_s, work))
            os._exit(0)
        if os.waitpid(child, 0)[1] != 0:
            _say(Footprint(problem="memory and load time not measured: the process ended early"))


def _say(footprint: Footprint) -> None:
    sys.stdout.write(json.dumps(asdict(footprint)) + "\n")
    sys.stdout.flush()


def _weigh(job: Job, loader: Any, import_s: float, work: Mapping[str, Any]) -> Footprint:
    """Load one subject, let it answer, look at this process."""
    try:
        start = time.perf_counter()
        answer = loader(job)
        load_s = time.perf_counter() - start
        for i, text in enumerate(work["texts"]):
            answer([text], None if work["pairs"] is None else [work["pairs"][i]])
        return Footprint(import_s, load_s, peak_mb())
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        return Footprint(
            problem=f"memory and load time not measured: {type(error).__name__}: {said}"
        )


def peak_mb() -> float | None:
    """Largest resident memory of this process so far, in MiB."""
    try:
        # Not getrusage first: on Linux its ru_maxrss survives exec, so a child shows its parent's peak.
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024


def _onnx() -> Any:
    from kdedge.runtime import Classifier

    def load(job: Job) -> Any:
        classifier = Classifier.load(
            job["folder"],
            precision=job["precision"],
            provider=job["provider"],
            threads=job["threads"],
        )
        return lambda texts, pairs: classifier.run(classifier.encode(texts, pairs))

    return load


def _torch() -> Any:
    from kdedge.benchmarks.torch_runner import opened

    def load(job: Job) -> Any:
        runner = opened(job)
        return lambda texts, pairs: runner.run(runner.encode(texts, pairs))

    return load
