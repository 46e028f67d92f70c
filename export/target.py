"""Refuses to replace a folder unless an earlier export of the same bundle wrote it."""

from __future__ import annotations

import json
from pathlib import Path

from kdedge.errors import UsageError
from kdedge.runtime.manifest import Manifest


def check_target(form: str, folder: Path, record: str, manifest: Manifest) -> None:
    """Check that a folder is missing, or holds the same form of the same bundle.

    Bundles are the same if they have the same name and labels: a student that was trained again
    replaces what was made of it before.

    Args:
        form: What would be written, such as "web page".
        folder: Where it would be written.
        record: A JSON file in that folder with the bundle's `name` and `spec`, as in its manifest.
        manifest: The manifest of the bundle.

    Raises:
        UsageError: If the folder holds something else.
    """
    if not folder.exists():
        return
    try:
        document = json.loads((folder / record).read_text(encoding="utf-8"))
        name, labels = document["name"], document["spec"]["labels"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise UsageError(
            f"the {form} would replace a folder that kdedge did not write",
            f"{folder}: {record} is missing or damaged",
            "move that folder, or copy the bundle into a folder of its own",
        ) from error
    if (name, labels) != (manifest.name, list(manifest.spec.labels)):
        other = "has other labels than this bundle"
        if name != manifest.name:
            other = f"is of {name}, this bundle is {manifest.name}"
        raise UsageError(
            f"the {form} would replace that of another bundle",
            f"{folder} {other}",
            f"copy the bundle into a folder of its own, or remove the old {form}",
        )
