"""Let one process at a time make a folder that several runs share."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from kdedge.run.processes import barrier, is_main
from kdedge.run.progress import Progress
from kdedge.run.stage import StageContext, stage


def wait_for_lock(folder: Path, waiting: str, progress: Progress) -> AbstractContextManager[Any]:
    """Lock `folder`, whose parent exists; wait if another process has locked it.

    Args:
        waiting: What is said before it waits.
    """
    lock = FileLock(str(folder.with_name(f".{folder.name}.lock")))
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        progress.say(f"{folder.name}: {waiting}")
        return lock.acquire()


def locked_stage(
    folder: Path,
    inputs: dict[str, Any],
    make: Callable[[Path], dict[str, Any]],
    waiting: str,
    stages: StageContext,
    temporary: str = "",
) -> dict[str, Any]:
    """Make a stage that several runs share, or reuse it; one process at a time makes it.

    A dry run takes no lock, because it writes nothing.

    Args:
        folder: As in `stage`, like `inputs`, `make`, `stages` and `temporary`.
        waiting: What is said before it waits.

    Returns:
        The stage's result.
    """
    lock: AbstractContextManager[Any] = nullcontext()
    if is_main() and not stages.dry_run:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = wait_for_lock(folder, waiting, stages.progress)
    with lock:
        barrier()  # now the other processes of this launch, too, see the finished stage
        return stage(folder, inputs, make, stages=stages, temporary=temporary)
