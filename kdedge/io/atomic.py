"""Small files that are the old text or the new one, never a part; and files that are still what was written."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from kdedge.errors import IntegrityError, MachineError


def write_atomic(path: Path, text: str) -> None:
    """Write a small file so that a reader sees the old text or the new one, never a part."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        hint = "free space or choose another folder; what was there before is intact"
        raise MachineError("a file cannot be written", f"{path}: {error.strerror}", hint) from error


def remove(path: Path) -> None:
    """Remove what stands there, if anything: a folder with all in it, a file, a link (and not what it points to)."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def json_text(document: Any) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def hash_file(path: Path) -> str:
    """SHA-256 of a file's content, read block by block."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def is_as_written(path: Path, written: str | None) -> bool:
    """Whether a file stands there whose SHA-256 is the one that was noted."""
    return path.is_file() and hash_file(path) == written


def require_hash(path: Path, written: str | None, what: str, hint: str) -> None:
    """Raises IntegrityError unless the file stands there as it was written. what: what it is a part of."""
    if not is_as_written(path, written):
        raise IntegrityError(
            f"{what} is not what was written",
            str(path) if path.is_file() else f"{path} is not there",
            hint,
        )


def replace_dir(part: Path, folder: Path) -> None:
    """Rename a finished folder over an older one; at every moment one of the two is whole."""
    old = folder.with_name(folder.name + ".old")
    recover_dir(folder)
    remove(old)
    if folder.exists() or folder.is_symlink():
        folder.rename(old)
    part.rename(folder)
    remove(old)


def recover_dir(folder: Path) -> None:
    """Where a kill came between the two renames of `put_in_place`, what was there before is there again."""
    old = folder.with_name(folder.name + ".old")
    if old.exists() and not folder.exists():
        old.rename(folder)


def hash_files(folder: Path, names: tuple[str, ...]) -> str:
    """SHA-256 over the named files of a folder, in order; a missing one counts as empty."""
    digest = hashlib.sha256()
    for name in names:
        path = folder / name
        digest.update(name.encode() + b"\0")
        if path.is_file():
            with path.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()
