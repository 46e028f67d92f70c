"""Recognise that a disk is full, also in errors of libraries that have classes of their own."""

from __future__ import annotations

import errno
from collections.abc import Iterator

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
DISK_FULL_TEXTS = (
    "no space left on device",
    "os error 28",
    "pytorchstreamwriter failed writing file",
    # The writer of torch checks its position when it closes the file.
    "unexpected pos ",
)
"""How safetensors and torch report a full disk, in lower case."""


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and those that led to it."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def is_disk_full(error: BaseException) -> bool:
    """Return whether an exception, without those that led to it, says that the disk is full."""
    if getattr(error, "errno", None) in DISK_FULL:
        return True
    text = str(error).lower()
    return any(phrase in text for phrase in DISK_FULL_TEXTS)
