"""The lists of exact versions name hashes and no registry."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "locks"
LOCKS = sorted(FOLDER.glob("*.txt"))
PEERS = sorted((FOLDER / "peers").glob("*.txt"))
"""Each is installed into an environment of its own, so versions may differ."""

REQUIREMENT = re.compile(r"^([a-z0-9][a-z0-9._-]*)==(\S+)( ; .+)? \\$", re.MULTILINE)


@pytest.mark.parametrize(
    "path", [*LOCKS, *PEERS], ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_every_requirement_has_a_version_and_a_hash(path: Path) -> None:
    text = path.read_text()
    entries = re.split(r"^(?=\S)", text, flags=re.MULTILINE)[1:]
    assert len(entries) >= 4
    for entry in entries:
        assert REQUIREMENT.match(entry), entry.splitlines()[0]
        assert re.search(r"^    --hash=sha256:[0-9a-f]{64}", entry, re.MULTILINE), entry
    assert "://" not in text, "a lock names no registry"


def test_the_locks_agree_on_versions() -> None:
    """The device lock is tested with the versions of the development lock."""
    versions: dict[str, set[str]] = {}
    for path in LOCKS:
        if path.stem == "optimum":
            continue  # an environment of its own, with an older transformers
        for name, version, marker in REQUIREMENT.findall(path.read_text()):
            versions.setdefault(name + marker, set()).add(version)
    assert [name for name, found in versions.items() if len(found) > 1] == []
