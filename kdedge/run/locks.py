"""Let one process at a time make a folder that several runs share."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from kdedge.run.progress import Progress


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
