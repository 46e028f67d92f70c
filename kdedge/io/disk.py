"""Recognise errors from a full disk, even if a library raises its own exception class."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kdedge.errors import KdedgeError, MachineError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
DISK_FULL_TEXTS = (
    "no space left on device",
    "os error 28",
    "pytorchstreamwriter failed writing file",
    # torch's file writer checks its position when it closes the file.
    "unexpected pos ",
    "basic_ios::clear: iostream error",
)
"""How safetensors and torch report a full disk, in lower case."""


LEAST_FREE = 64 << 10
"""Bytes below which an error of a writer is put down to the disk, whatever its text."""


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and the chain of exceptions that caused it."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def is_disk_full(error: BaseException) -> bool:
    """Return whether an exception itself (not its cause) says that the disk is full."""
    if getattr(error, "errno", None) in DISK_FULL:
        return True
    text = str(error).lower()
    return any(phrase in text for phrase in DISK_FULL_TEXTS)


def has_no_space(folder: Path) -> bool:
    """Return whether the disk of a folder has hardly any free space."""
    try:
        return shutil.disk_usage(folder).free < LEAST_FREE
    except OSError:
        return False


@contextmanager
def named_disk_errors(folder: Path) -> Iterator[None]:
    """Raise MachineError with the folder's path if a full or read-only disk ends the block."""
    try:
        yield
    except KdedgeError:
        raise
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        if any(map(is_disk_full, causes(error))) or has_no_space(folder.parent):
            raise MachineError(
                "the disk is full",
                f"{folder}: {error}",
                "free space and run the same command: finished work is reused",
            ) from error
        if number in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise MachineError(
                "this folder cannot be written to",
                str(error),
                "choose a folder that you may write to, and run the same command",
            ) from error
        raise
