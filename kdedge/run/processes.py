"""Coordinate one or more processes (`accelerate launch`): who writes, and when to wait."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any


def available_cores() -> int:
    """Return the number of cores that this process may use; a container may give it fewer."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


DEVICE_VARIABLE = "KDEDGE_DEVICE"
"""Environment variable that chooses the device: auto, cpu or cuda."""


def processes() -> int:
    """Return the number of processes of this launch."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Return the number of this process, counted from 0."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """Return the number of this process on its machine, counted from 0."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def is_main() -> bool:
    """Return whether this process prints messages and writes shared files."""
    return rank() == 0


def barrier() -> None:
    """Wait until every process arrives here."""
    if processes() > 1:
        _state().wait_for_everyone()


def _state() -> Any:
    import torch
    from accelerate import PartialState

    cpu = os.environ.get(DEVICE_VARIABLE) == "cpu" or not torch.cuda.is_available()
    # One process may work for hours while the others wait, so the default of minutes is too short.
    return PartialState(cpu=cpu, timeout=timedelta(hours=48))


def on_main_process(work: Callable[[], Any]) -> Any:
    """Call `work` in the main process while the others wait; they return None."""
    result = work() if is_main() else None
    barrier()
    return result
