"""One process or many (`accelerate launch`): who writes, and where all wait for one another."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any


def processes() -> int:
    """How many processes this program was launched as."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Which of the processes this is, counted from 0."""
    return int(os.environ.get("RANK", "0"))


def is_main() -> bool:
    """Whether this is the process that talks, and writes what all share."""
    return rank() == 0


def barrier() -> None:
    """Wait until every process is here."""
    if processes() > 1:
        _state().wait_for_everyone()


def _state() -> Any:
    from accelerate import PartialState

    # One process may have much more to do than the others, such as judging texts: hours, not the default minutes.
    return PartialState(cpu=_on_cpu(), timeout=timedelta(hours=48))


def _on_cpu() -> bool:
    import torch

    return not torch.cuda.is_available()


def on_main_process(work: Callable[[], Any]) -> Any:
    """Run `work` in the main process alone while the others wait; None in those."""
    result = work() if is_main() else None
    barrier()
    return result
