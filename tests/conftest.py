"""Fixtures for all tests; makes a checkout importable that is not installed."""

from __future__ import annotations

import gc
import importlib.util
import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import kdedge

ROOT = Path(__file__).resolve().parent.parent

# A slow machine is no fault of a test.
settings.register_profile("slow", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("slow")


def _add_subpackages() -> None:
    """Find kdedge.export and kdedge.benchmarks, which a checkout keeps beside kdedge/."""
    if importlib.util.find_spec("kdedge.export") is None:
        sys.path.append(str(ROOT))
        kdedge.__path__.append(str(ROOT))


def _use_one_core() -> None:
    """Give each worker of pytest-xdist a core of its own, also for the processes it starts.

    Training takes as many threads as there are cores. Threads of several processes would wait for
    each other most of the time.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if not worker.startswith("gw") or not hasattr(os, "sched_setaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})


_add_subpackages()
_use_one_core()


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of real data; without it, tests fail in CI and skip elsewhere."""
    folder = Path(os.environ.get("KDEDGE_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        message = f"no real data: {folder} is missing"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return folder


@pytest.fixture(scope="module", autouse=True)
def _freeze_imported_objects() -> None:
    """Keep imported modules out of garbage collections.

    Every training ends with one. It would walk a million objects, which takes up to two seconds.
    """
    gc.collect()
    gc.freeze()


def pytest_configure() -> None:
    """Pause the garbage collection while all tests are imported: nothing becomes garbage there."""
    gc.disable()


def pytest_collection_finish() -> None:
    """End the pause."""
    gc.enable()


def pytest_sessionfinish() -> None:
    """Let the interpreter collect everything at its end: triton complains about leaks otherwise."""
    gc.unfreeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start slow tests first; otherwise one of them would keep a single worker busy at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
