"""Makes a bare checkout importable as installed, and finds the shared real data and models."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import kdedge

ROOT = Path(__file__).resolve().parent.parent

LONGEST = (
    "test_training.py",
    "test_augment_run.py",
    "test_run.py",
    "test_study_objectives.py",
    "test_tune.py",
)
"""Files that take minutes: begun last, one of them would keep a single worker busy at the end."""


def _add_bare_checkout_rooms() -> None:
    """In a checkout that is not installed, export/ and benchmarks/ stand beside kdedge/, not in it."""
    import importlib.util

    if importlib.util.find_spec("kdedge.export") is None:
        import sys

        sys.path.append(str(ROOT))
        kdedge.__path__.append(str(ROOT))


_add_bare_checkout_rooms()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and models beside the checkout; its absence fails in CI and skips elsewhere."""
    folder = Path(os.environ.get("KDEDGE_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        message = f"no real data: {folder} is missing"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files come first; workers take files in the order of the tests (`--no-loadscope-reorder`)."""
    items.sort(key=lambda item: item.path.name not in LONGEST)
