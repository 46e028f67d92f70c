"""Loads one subject in a process of its own and tells what that took: seconds to load, megabytes at the peak.

The parent starts it as `python -c LOADER JOB`; the last line it prints is one JSON document.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kdedge

TIMEOUT = 300

LOADER = """
import json, sys
job = json.loads(sys.stdin.read())
sys.path.extend(entry for entry in job["sys_path"] if entry not in sys.path)
import kdedge
kdedge.__path__.extend(entry for entry in job["package_path"] if entry not in kdedge.__path__)
from kdedge.benchmarks.probe import main
main(job)
"""
"""A child finds the code where its parent did: in a checkout, export/ and benchmarks/ do not lie in kdedge/."""


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


def footprint(job: dict[str, Any], texts: list[str], pairs: list[str] | None) -> Footprint:
    """Run one job (see Contender.job) in a child process; never raises, a failed child is a Footprint with a problem."""
    paths = {"sys_path": [entry or os.getcwd() for entry in sys.path], "package_path": [str(entry) for entry in kdedge.__path__]}
    threads = str(job["threads"])
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    try:
        child = subprocess.run(
            # -P: nothing is imported from the folder the user happens to stand in.
            [sys.executable, "-P", "-c", LOADER],
            input=json.dumps({**job, **paths, "texts": texts, "pairs": pairs}),
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=TIMEOUT,
            env=environment,
            check=True,
        )
        return Footprint(**json.loads(child.stdout.strip().splitlines()[-1]))
    except subprocess.CalledProcessError as error:
        last = (error.stderr or "").strip().splitlines()[-1:] or [f"exit code {error.returncode}"]
        return Footprint(problem=f"memory and load time not measured: {last[0][:200]}")
    except (OSError, subprocess.SubprocessError, ValueError, TypeError, IndexError) as error:
        return Footprint(problem=f"memory and load time not measured: {type(error).__name__}")


def main(job: dict[str, Any]) -> None:
    """Be the child: load, answer, print one JSON line."""
    start = time.perf_counter()
    load = _onnx_loader(job) if job["form"] == "onnx" else _torch_loader(job)
    imported = time.perf_counter()
    answer = load()
    loaded = time.perf_counter()
    for i, text in enumerate(job["texts"]):
        answer([text], None if job["pairs"] is None else [job["pairs"][i]])
    print(json.dumps({"import_s": imported - start, "load_s": loaded - imported, "peak_mb": peak_mb()}))


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


def _onnx_loader(job: dict[str, Any]) -> Any:
    from kdedge.runtime import Classifier

    def load() -> Any:
        classifier = Classifier.load(job["folder"], precision=job["precision"], provider=job["provider"], threads=job["threads"])
        return lambda texts, pairs: classifier.run(classifier.encode(texts, pairs))

    return load


def _torch_loader(job: dict[str, Any]) -> Any:
    from .lab import torch_runner

    def load() -> Any:
        runner = torch_runner(Path(job["folder"]), job["max_length"], job["device"], job["threads"])
        return lambda texts, pairs: runner.run(runner.encode(texts, pairs))

    return load
