"""Replace files and folders atomically, and check their hashes."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kdedge.errors import IntegrityError, MachineError


def write_atomic(path: Path, text: str) -> None:
    """Write a small file; a reader sees the old text or the new one, never a part."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise MachineError(
            "a file cannot be written",
            f"{path}: {error.strerror}",
            "free space or choose another folder; the old file is intact",
        ) from error


def remove(path: Path) -> None:
    """Remove a file, a link (but not its target) or a folder with its content, if it exists."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


@contextmanager
def removed_on_error(path: Path) -> Iterator[None]:
    """Remove what stands at a path if the block raises, and raise again."""
    try:
        yield
    except BaseException:
        remove(path)
        raise


def json_text(document: Any) -> str:
    """Return a document as JSON text in the format of all of kdedge's files."""
    return json.dumps(document, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_files(folder: Path, names: tuple[str, ...]) -> str:
    """Return the SHA-256 of the named files in order; a missing file counts as empty."""
    digest = hashlib.sha256()
    for name in names:
        path = folder / name
        digest.update(name.encode() + b"\0")
        if path.is_file():
            with path.open("rb") as stream:
                hashlib.file_digest(stream, lambda: digest)
    return digest.hexdigest()


def is_as_written(path: Path, expected: str | None) -> bool:
    """Return whether the file exists and its SHA-256 is the expected one."""
    return path.is_file() and hash_file(path) == expected


def require_hash(path: Path, expected: str | None, owner: str, hint: str) -> None:
    """Raise IntegrityError unless the file has the expected SHA-256.

    Args:
        path: The file.
        expected: The SHA-256 that was recorded when the file was written.
        owner: What the file belongs to, for the message.
        hint: What the user can do.
    """
    if not is_as_written(path, expected):
        raise IntegrityError(
            f"{owner}: a file has changed since it was written",
            str(path) if path.is_file() else f"{path} does not exist",
            hint,
        )


def replace_dir(part: Path, folder: Path) -> None:
    """Replace `folder` by the finished folder `part`; at every moment one of both is whole."""
    old = folder.with_name(folder.name + ".old")
    recover_dir(folder)
    remove(old)
    if folder.exists() or folder.is_symlink():
        folder.rename(old)
    part.rename(folder)
    remove(old)


def recover_dir(folder: Path) -> None:
    """Restore the old folder if the process was killed between two renames of `replace_dir`."""
    old = folder.with_name(folder.name + ".old")
    if old.exists() and not folder.exists():
        old.rename(folder)
