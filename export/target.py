"""Which bundle, and which export of it, the kits and the web page next to it were made from."""

from __future__ import annotations

import json
import os
from pathlib import Path

from kdedge.errors import UsageError
from kdedge.runtime.digest import DIGEST
from kdedge.runtime.layout import MANIFEST
from kdedge.runtime.manifest import Manifest

RECORD = "bundle.json"
"""The file of every kit that says which bundle it was made of."""


def outdated_copies(bundle: Path, manifest: Manifest) -> dict[str, Path]:
    """Return the kits and the web page next to a bundle that were made of an earlier export of it.

    Args:
        bundle: The folder of the bundle.

    Returns:
        Option of `kdedge export` that writes it again -> folder.
    """
    parent = Path(os.path.abspath(bundle)).parent
    records = {"--web": parent / "web" / "bundle" / MANIFEST}
    for record in sorted((parent / "kits").glob(f"*/{RECORD}")):
        records[f"--kit {record.parent.name}"] = record
    outdated = {}
    for option, record in records.items():
        try:
            found = json.loads(record.read_text(encoding="utf-8"))[DIGEST]
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            continue  # It is missing, or was not written by kdedge.
        if found != manifest.digest():
            outdated[option] = parent / "web" if option == "--web" else record.parent
    return outdated


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
