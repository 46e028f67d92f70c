"""Write this kdedge as a wheel, to install the same code on another machine.

It needs no build tool and no network: it zips the files of the running packages with the metadata
of their installation.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import importlib.util
import zipfile
from collections.abc import Iterator
from pathlib import Path

from kdedge.errors import MachineError

DISTRIBUTION = "kdedge-toolkit"
PACKAGES = ("kdedge", "kdedge.export", "kdedge.benchmarks")
"""In a checkout, the last two are folders next to the first one."""

LEFT_OUT = ("__pycache__", "node_modules", "studies", "results")
"""Folders of a checkout that are in no wheel."""

WHEEL = "Wheel-Version: 1.0\nGenerator: kdedge\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def write_wheel(folder: Path) -> Path:
    """Write the wheel of this kdedge into a folder and return its path.

    Raises:
        MachineError: If kdedge is not installed, so that its dependencies are not known.
    """
    installed = _installed()
    stem = f"{DISTRIBUTION.replace('-', '_')}-{installed.version}"
    info = f"{stem}.dist-info"
    path = folder / f"{stem}-py3-none-any.whl"
    record = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in [*_code(), *_metadata(installed, info)]:
            archive.writestr(name, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
            record.append(f"{name},sha256={digest.decode()},{len(content)}")
        record.append(f"{info}/RECORD,,")
        archive.writestr(f"{info}/RECORD", "\n".join(record) + "\n")
    return path


def _installed() -> importlib.metadata.Distribution:
    """Return the installation of kdedge; a build may leave an egg-info folder without METADATA."""
    for found in importlib.metadata.distributions(name=DISTRIBUTION):
        if found.read_text("METADATA"):
            return found
    raise MachineError(
        "kdedge is not installed here, so it cannot be copied to the target",
        f"there is no distribution {DISTRIBUTION}",
        "pip install it here; or use a virtual environment of the target with --remote-venv",
    )


def _code() -> Iterator[tuple[str, bytes]]:
    """Yield path in the wheel and content of every file of the packages."""
    seen = set()
    for package in PACKAGES:
        found = importlib.util.find_spec(package)
        assert found is not None and found.submodule_search_locations
        root = Path(found.submodule_search_locations[0])
        for file in sorted(root.rglob("*")):
            below = file.relative_to(root)
            if file.is_dir() or set(below.parts) & set(LEFT_OUT):
                continue
            name = f"{package.replace('.', '/')}/{below.as_posix()}"
            if name not in seen:  # An installed kdedge contains the others.
                seen.add(name)
                yield name, file.read_bytes()


def _metadata(installed: importlib.metadata.Distribution, info: str) -> Iterator[tuple[str, bytes]]:
    for name in ("METADATA", "entry_points.txt"):
        yield f"{info}/{name}", (installed.read_text(name) or "").encode("utf-8")
    yield f"{info}/WHEEL", WHEEL.encode()
