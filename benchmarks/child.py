"""Run a part of a bench in a new process, which imports kdedge from the same place.

In a checkout export/ and benchmarks/ are not inside kdedge/. The child's last line on stdout is a
JSON document.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import kdedge

TIMEOUT = 600

LOADER = """
import importlib, json, sys
work = json.loads(sys.stdin.read())
sys.path.extend(entry for entry in work["sys_path"] if entry not in sys.path)
import kdedge
kdedge.__path__.extend(entry for entry in work["package_path"] if entry not in kdedge.__path__)
importlib.import_module(work["module"]).main(work)
"""

Job = Mapping[str, Any]
"""What to load; see `Subject.job`."""

Answer = Callable[[list[str], list[str] | None], Any]
Loader = Callable[[Job], Answer]

CHILD_FAULTS = (subprocess.SubprocessError, ValueError, TypeError, IndexError)
"""What `run_child` and the reading of its document can raise."""


def run_child(
    module: str,
    job: Job,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    more: Mapping[str, Any] | None = None,
) -> Any:
    """Run `main` of a module in a new process; return the document that it writes.

    Args:
        module: A module with a function `main(work)`.
        job: The subject to load.
        texts: Texts to classify.
        pairs: Their second texts, for a pair task.
        more: Further entries of `work`.

    Raises:
        subprocess.SubprocessError: If the process fails.
        ValueError: If it writes no document.
    """
    work = {
        **(more or {}),
        "module": module,
        "job": dict(job),
        "texts": list(texts),
        "pairs": None if pairs is None else list(pairs),
        "sys_path": [entry or os.getcwd() for entry in sys.path],
        "package_path": list(map(str, kdedge.__path__)),
        # The clock is the same in all processes of a machine.
        "spawned": time.perf_counter(),
    }
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(job["threads"]),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(
        # -P: import nothing from the current folder.
        [sys.executable, "-P", "-c", LOADER],
        input=json.dumps(work),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
        env=environment,
        timeout=TIMEOUT,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def loader_of(job: Job) -> Loader:
    """Import the libraries that a job needs, and return the function that loads it."""
    return _torch_loader() if job["form"] == "torch" else _onnx_loader()


def items_of(work: Mapping[str, Any]) -> list[tuple[list[str], list[str] | None]]:
    """Return every text of `work` alone, with its second text."""
    items: list[tuple[list[str], list[str] | None]] = []
    for number, text in enumerate(work["texts"]):
        pair = None if work["pairs"] is None else [work["pairs"][number]]
        items.append(([text], pair))
    return items


def _onnx_loader() -> Loader:
    from kdedge.runtime import Classifier

    def load(job: Job) -> Answer:
        classifier = Classifier.load(
            job["folder"],
            precision=job["precision"],
            provider=job["provider"],
            threads=job["threads"],
            fallback=job.get("fallback", False),
        )
        return lambda texts, pairs: classifier.run(classifier.encode(texts, pairs))

    return load


def _torch_loader() -> Loader:
    from kdedge.benchmarks.torch_runner import load_runner

    def load(job: Job) -> Answer:
        runner = load_runner(job)
        return lambda texts, pairs: runner.run(runner.encode(texts, pairs))

    return load
