"""The files of a finished stage: recorded when it is written, checked before it is reused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from kdedge.errors import IntegrityError
from kdedge.io.atomic import hash_file


@dataclass(frozen=True)
class FileRecord:
    """One file as a stage wrote it.

    Attributes:
        sha256: SHA-256 of the content.
        size: Bytes.
        mtime_ns: Time of the last change, in nanoseconds.
    """

    sha256: str
    size: int
    mtime_ns: int = field(compare=False)

    @classmethod
    def of(cls, path: Path) -> FileRecord:
        status = path.stat()
        return cls(hash_file(path), status.st_size, status.st_mtime_ns)

    def has_same_times(self, path: Path) -> bool:
        """Return whether size and modification time of a file are unchanged."""
        status = path.stat()
        return status.st_size == self.size and status.st_mtime_ns == self.mtime_ns


def record_files(folder: Path, unrecorded: tuple[str, ...] = ()) -> dict[str, dict[str, Any]]:
    """Return path -> record, as JSON values, for every file of an unfinished stage.

    Args:
        folder: The folder of the stage.
        unrecorded: Patterns of names that are left out.
    """
    records = {}
    for path in sorted(folder.rglob("*")):
        left_out = any(fnmatch(path.name, pattern) for pattern in unrecorded)
        if path.is_file() and not left_out:
            records[path.relative_to(folder).as_posix()] = asdict(FileRecord.of(path))
    return records


def changed_file(
    folder: Path, records: Mapping[str, FileRecord], *, trust_times: bool
) -> str | None:
    """Describe the first file that differs from what the stage wrote; None if none does.

    Args:
        folder: The folder of the stage.
        records: Path -> record.
        trust_times: Whether to read only files whose size or time differs. The files of a copied
            stage have other times, so they are read and compared by content.
    """
    for name, record in records.items():
        path = folder / name
        if not path.is_file():
            return f"{path} does not exist"
        if trust_times and record.has_same_times(path):
            continue
        if path.stat().st_size != record.size or hash_file(path) != record.sha256:
            return f"{path} has another content"
    return None


def changed_error(change: str, folder: Path) -> IntegrityError:
    """Return the error for a stage with a changed file."""
    return IntegrityError(
        "a file of a finished stage has changed since it was written",
        change,
        f"restore the file; or remove {folder} and run `kdedge distill` on the recipe, "
        "or pass it --force to make the stage again",
    )
