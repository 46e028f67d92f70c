"""Find a bundle: a folder, a zip file, or a repository on the Hugging Face hub.

A zip or a hub repository may be hostile. So only the files of a bundle are copied from it into a
temporary folder, up to limits, and `Bundle.open` verifies them.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from kdedge.errors import IntegrityError, MachineError, UsageError, first_line
from kdedge.runtime.bundle import Bundle
from kdedge.runtime.digest import require_digest
from kdedge.runtime.layout import EVALUATION, LAYOUT, MANIFEST, UNLISTED, size_limit
from kdedge.runtime.verified_file import verify_file

NAMES = frozenset((*UNLISTED, *LAYOUT))
"""Paths of the files that a bundle may contain."""

DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    IndexError,
    ValueError,
    OverflowError,
)
"""Errors that Python's `zipfile` raises for damaged files."""

MAX_ENTRIES = 64
MAX_ZIP_CONTENT = 2 << 30
"""Most bytes of all files of a zip together."""

MAX_RATIO = 200
FREE_BYTES = 1 << 20
"""Only larger files must have at most `MAX_RATIO` times their size in the zip."""

BLOCK = 1 << 20
"""Bytes that are copied at a time."""

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
REVISION = re.compile(r"[A-Za-z0-9][\w./-]*")
"""A branch, a tag or a commit of a hub repository."""


def open_bundle(source: str | Path | Bundle, digest: str | None = None) -> Bundle:
    """Open a bundle; the files of a zip or hub repository are verified at once.

    Args:
        source: A folder, a zip file of one, a hub repository as `owner/name` or
            `owner/name@revision` (a string), or a bundle that is already open.
        digest: The digest that the bundle must have, as `kdedge info` prints it.

    Raises:
        UsageError: If there is no such bundle.
        IntegrityError: If a file is not the one that was exported, or the zip is not safe.
        MachineError: If the hub repository cannot be downloaded.
    """
    if isinstance(source, Bundle):
        require_digest(source.manifest.digest(), digest)
        return source
    if not isinstance(source, str | os.PathLike):
        raise UsageError(
            "a bundle is named by its folder",
            f"it was given as {type(source).__name__}",
            "give its path, or owner/name of a repository on the hub",
        )
    with bundle_folder(source) as folder:
        opened = Bundle.open(folder, digest)
        if folder != Path(source):
            # The temporary folder is removed, so its files are read now.
            return Bundle(Path(source), opened.manifest, _read_contents(opened))
    return opened


def _read_contents(bundle: Bundle) -> dict[str, bytes]:
    """Read and verify every file; do not keep evaluation texts, which no prediction needs."""
    contents = {}
    for name, entry in bundle.manifest.files.items():
        if name == EVALUATION:
            verify_file(bundle.folder, name, size=entry["bytes"], sha256=entry["sha256"])
        else:
            contents[name] = bundle.contents[name]
    return contents


@contextmanager
def bundle_folder(source: str | Path) -> Iterator[Path]:
    """Yield the folder of a bundle; for a zip or hub repository, a temporary one of its name."""
    path = Path(source)
    if path.is_file():
        with _temporary_folder(path.name) as folder:
            extract_bundle(path, folder)
            yield folder
    elif isinstance(source, str) and not path.exists() and _is_hub_source(source):
        # A branch, such as refs/pr/1, may have slashes.
        with _temporary_folder(source.partition("/")[2].replace("/", "-")) as folder:
            copy_hub_bundle(source, folder)
            yield folder
    else:
        yield path


@contextmanager
def _temporary_folder(name: str) -> Iterator[Path]:
    """Yield an empty folder of a name, which reports show, in a temporary one."""
    with TemporaryDirectory(prefix="kdedge-") as above:
        folder = Path(above) / name
        folder.mkdir()
        yield folder


def _is_hub_source(source: str) -> bool:
    """Return whether a text is `owner/name` or `owner/name@revision`."""
    repository, separator, revision = source.partition("@")
    if separator and not REVISION.fullmatch(revision):
        return False
    return HUB_ID.fullmatch(repository) is not None


def extract_bundle(path: Path, folder: Path) -> None:
    """Extract a zip of a bundle into an empty folder.

    The bundle stands at the top of the zip, or in one folder that holds everything.

    Raises:
        UsageError: If the file is not a zip.
        IntegrityError: If the zip is damaged, too large, or contains something that no bundle has:
            other files, paths out of the folder, links, or a name twice.
    """
    if not zipfile.is_zipfile(path):
        raise UsageError(
            "this file is not a bundle",
            f"{path} is neither a folder nor a zip file",
            "name a folder made by `kdedge export`, or a zip of it",
        )
    try:
        with zipfile.ZipFile(path) as archive:
            for name, entry in _checked_entries(archive).items():
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as source:
                    _copy(source, target, entry.file_size)
    except DAMAGED as error:
        raise _unsafe("it is damaged", first_line(error)) from error
    except OSError as error:
        if error.errno == errno.EINVAL:  # A position before the start of the file.
            raise _unsafe("it is damaged", first_line(error)) from error
        raise MachineError(
            "the zip of the bundle cannot be extracted",
            first_line(error),
            "free space in the folder for temporary files",
        ) from error


def _checked_entries(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return path in the bundle -> entry, for every file of a safe zip."""
    entries = archive.infolist()
    if len(entries) > MAX_ENTRIES:
        raise _unsafe(f"it has {len(entries)} entries", f"a bundle has at most {len(NAMES)} files")
    files = [entry for entry in entries if not entry.is_dir()]
    prefix = _common_folder([entry.filename for entry in files])
    checked: dict[str, zipfile.ZipInfo] = {}
    for entry in files:
        name = entry.filename.removeprefix(prefix)
        if name not in NAMES:
            raise _unsafe(
                "it holds a file that is not part of a bundle", repr(entry.filename)[:200]
            )
        if name in checked:
            raise _unsafe("it holds a file twice", name)
        _check_entry(name, entry)
        checked[name] = entry
    if sum(entry.file_size for entry in files) > MAX_ZIP_CONTENT:
        raise _unsafe("its files are too large", f"more than {MAX_ZIP_CONTENT:,} bytes")
    return checked


def _common_folder(names: list[str]) -> str:
    """Return `folder/` if the manifest stands in a folder at the top of the zip, else ""."""
    for name in names:
        folder, _, rest = name.partition("/")
        if rest == MANIFEST and folder not in ("", ".", ".."):
            return f"{folder}/"
    return ""


def _check_entry(name: str, entry: zipfile.ZipInfo) -> None:
    """Raise IntegrityError if an entry is not a plain file of a reasonable size."""
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise _unsafe("it holds a link or a special file", name)
    if entry.flag_bits & 1:
        raise _unsafe("a file is encrypted", name)
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _unsafe("a file is compressed by a method other than deflate", name)
    if entry.file_size > size_limit(name):
        raise _unsafe("a file is too large", f"{name}: {entry.file_size:,} bytes")
    is_bomb = entry.file_size > MAX_RATIO * entry.compress_size
    if is_bomb and entry.file_size > FREE_BYTES:
        raise _unsafe(
            "a file is too large for its compressed size",
            f"{name}: {entry.compress_size:,} bytes become {entry.file_size:,}",
        )


def _unsafe(problem: str, detail: str) -> IntegrityError:
    return IntegrityError(
        f"the zip is no bundle that can be used: {problem}",
        detail,
        "zip the folder that `kdedge export` wrote, without other files",
    )


def copy_hub_bundle(source: str, folder: Path) -> None:
    """Download the bundle's files of a hub repository, or take them from the local cache.

    `source` is `owner/name`, or `owner/name@revision` with a branch, a tag or a commit.

    Raises:
        MachineError: If huggingface_hub is missing, or the repository is not reachable.
        UsageError: If the repository holds no bundle.
    """
    snapshot = _download(source)
    if not (snapshot / MANIFEST).is_file():
        raise UsageError(
            "this hub repository is not a bundle",
            f"{source} has no {MANIFEST}",
            "name a repository that holds what `kdedge export` wrote",
        )
    cache = snapshot.parent.parent.resolve()
    for name in sorted(NAMES):
        path = snapshot / name  # a link into the cache
        if not path.is_file():
            continue
        if not path.resolve().is_relative_to(cache):
            raise IntegrityError(
                "a file in the hub's cache is a link out of it", name, "remove it from the cache"
            )
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with path.open("rb") as stream:
            _copy(stream, target, size_limit(name))


def _download(source: str) -> Path:
    repository, _, revision = source.partition("@")
    try:
        from huggingface_hub import snapshot_download
    except ModuleNotFoundError as error:
        raise MachineError(
            "bundles on the hub need huggingface_hub",
            f"no folder {source!r} exists here, and huggingface_hub is not installed",
            "check the folder's name, or pip install huggingface_hub",
        ) from error
    try:
        snapshot = snapshot_download(
            repository, revision=revision or None, allow_patterns=sorted(NAMES)
        )
        return Path(snapshot)
    # Networks, caches and hubs raise many classes of errors; the remedy is the same.
    except Exception as error:
        raise MachineError(
            "the bundle cannot be downloaded from the hub",
            f"{source}: {first_line(error)}",
            f"check the name and the network; no folder {source!r} exists here",
        ) from error


def _copy(source: IO[bytes], target: Path, limit: int) -> None:
    """Copy at most `limit` + 1 bytes: `Bundle.open` then rejects a file that is too long."""
    left = limit + 1
    with target.open("xb") as stream:
        while left > 0:
            block = source.read(min(left, BLOCK))
            if not block:
                break
            stream.write(block)
            left -= len(block)
