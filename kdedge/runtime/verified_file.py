"""Read files of a folder that may be hostile: reject links, pipes and unexpected content."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from kdedge.errors import IntegrityError

OPEN_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_BINARY", 0)
)
"""Do not follow a link at the end of the path, and do not wait for the other end of a pipe."""

BLOCK = 1 << 20
"""Bytes that are hashed at a time."""


class VerifiedFiles(Mapping[str, bytes]):
    """Path in a folder -> the bytes of the file, read and verified on first use.

    Args:
        folder: The folder.
        files: Path -> {"sha256", "bytes"}.

    Raises:
        IntegrityError: On access, if a file does not have the size and hash of its entry.
    """

    def __init__(self, folder: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
        self._folder = folder
        self._files = files
        self._contents: dict[str, bytes] = {}

    def __getitem__(self, name: str) -> bytes:
        if name not in self._contents:
            entry = self._files[name]
            self._contents[name] = read_verified_file(
                self._folder, name, size=entry["bytes"], sha256=entry["sha256"]
            )
        return self._contents[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def check_size(folder: Path, name: str, size: int) -> None:
    """Raise IntegrityError if a file is missing, not regular, or of another size."""
    found = _regular_size(folder, name)
    if found != size:
        raise _changed(name, f"{found} bytes instead of {size}")


def check_regular_file(folder: Path, name: str, *, max_bytes: int) -> None:
    """Raise IntegrityError if a file is missing, not regular, behind a link, or too large."""
    found = _regular_size(folder, name)
    if found > max_bytes:
        raise _too_large(name, found, max_bytes)


def _regular_size(folder: Path, name: str) -> int:
    """Return the bytes of a regular file that is reached without symbolic links."""
    path = folder / name
    try:
        _reject_links(folder, path, name)
        status = path.lstat()
    except OSError as error:
        raise _changed(name, error.strerror or str(error)) from error
    if not stat.S_ISREG(status.st_mode):
        raise _changed(name, "it is not a regular file")
    return status.st_size


def read_verified_file(folder: Path, name: str, *, size: int, sha256: str) -> bytes:
    """Read a file whose size and SHA-256 are known. Raises IntegrityError if either differs."""
    content = read_regular_file(folder, name, max_bytes=size)
    if len(content) != size:
        raise _changed(name, f"{len(content)} bytes instead of {size}")
    if hashlib.sha256(content).hexdigest() != sha256:
        raise _changed(name, "its SHA-256 differs from the one in the manifest")
    return content


def verify_file(folder: Path, name: str, *, size: int, sha256: str) -> None:
    """Check size and SHA-256 as `read_verified_file` does, without the content in memory."""
    digest, count = hashlib.sha256(), 0
    with _open_regular_file(folder, name, max_bytes=size) as stream:
        while block := stream.read(min(BLOCK, size + 1 - count)):
            digest.update(block)
            count += len(block)
    if count != size:
        raise _changed(name, f"{count} bytes instead of {size}")
    if digest.hexdigest() != sha256:
        raise _changed(name, "its SHA-256 differs from the one in the manifest")


def read_regular_file(folder: Path, name: str, *, max_bytes: int) -> bytes:
    """Read a regular file that is reached without symbolic links.

    Hard links are accepted: package caches and container layers create them.

    Raises:
        IntegrityError: If the file is missing, not regular, behind a link, or too large.
    """
    with _open_regular_file(folder, name, max_bytes=max_bytes) as stream:
        return stream.read(max_bytes + 1)


@contextmanager
def _open_regular_file(folder: Path, name: str, *, max_bytes: int) -> Iterator[BinaryIO]:
    path = folder / name
    try:
        _reject_links(folder, path, name)
        with os.fdopen(os.open(path, OPEN_FLAGS), "rb") as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise _changed(name, "it is not a regular file")
            if status.st_size > max_bytes:
                raise _too_large(name, status.st_size, max_bytes)
            yield stream
    except OSError as error:
        raise _changed(name, error.strerror or str(error)) from error


def _reject_links(folder: Path, path: Path, name: str) -> None:
    step = path
    while step != folder:
        if step.is_symlink():
            raise _changed(name, "it is reached through a link, and a bundle holds none")
        step = step.parent


def _too_large(name: str, found: int, most: int) -> IntegrityError:
    return _changed(name, f"{found} bytes, at most {most} were expected")


def _changed(name: str, detail: str) -> IntegrityError:
    return IntegrityError(
        f"{name} of the bundle is not the file that was exported",
        detail,
        "copy the bundle again from its source",
    )
