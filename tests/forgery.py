"""Change a bundle as a forger would: with new hashes and a new digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from kdedge.errors import IntegrityError, UsageError
from kdedge.runtime import Bundle, Classifier
from kdedge.runtime.digest import document_digest
from kdedge.runtime.layout import MANIFEST


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the manifest and write its new digest."""
    document = json.loads((folder / MANIFEST).read_text())
    change(document)
    with suppress(ValueError):  # There is no digest of NaN or of half a character.
        document["digest"] = document_digest(document)
    (folder / MANIFEST).write_text(json.dumps(document))


def forge_file(folder: Path, name: str, content: bytes) -> None:
    """Replace a file and write its hash into the manifest."""
    (folder / name).write_bytes(content)
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    edit_manifest(folder, lambda document: document["files"].update({name: entry}))


def assert_rejected(folder: Path, name: str = "") -> None:
    """Check that a bundle is refused, with an error that names `name`."""
    with pytest.raises((IntegrityError, UsageError)) as error:
        Bundle.open(folder).verify_files()
        Classifier.load(folder)
    assert name in str(error.value)
