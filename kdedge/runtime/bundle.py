"""Open a bundle, the folder that goes to the device; verify each file on first use.

bundle/  README.md  config.json  tokenizer.json  tokenizer_config.json  golden.json  kdedge.json
         agreement.json (if the teacher's logits are known)
         kdedge.sig (if it is signed)
         evaluation.json, sbom.cdx.json (if they were requested)
         onnx/model.onnx  model_quantized.onnx  model_fp16.onnx  model_portable.onnx (one or more)
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdedge.errors import IntegrityError, UsageError
from kdedge.printable import printable
from kdedge.runtime.digest import require_digest
from kdedge.runtime.layout import LAYOUT, MANIFEST, UNLISTED, file_names, size_limit
from kdedge.runtime.manifest import Manifest, read_manifest
from kdedge.runtime.verified_file import (
    VerifiedFiles,
    check_regular_file,
    check_size,
    verify_file,
)

MAX_STRUCTURE = 2_000_000
"""Most brackets and commas of a JSON file: each can become an object in memory."""


@dataclass(frozen=True, repr=False)
class Bundle:
    """An open bundle.

    Attributes:
        contents: Path -> verified bytes, which are read on first use. Use these and not the files,
            which can change.
    """

    folder: Path
    manifest: Manifest
    contents: Mapping[str, bytes]

    def __repr__(self) -> str:
        files = ", ".join(sorted(self.manifest.precisions))
        size = self.manifest.size() / 1e6
        return (
            f"Bundle({str(self.folder)!r}: {printable(self.manifest.name)}, {files}, {size:.1f} MB)"
        )

    @classmethod
    def open(cls, folder: str | Path, digest: str | None = None) -> Bundle:
        """Read a bundle's manifest and check the names and sizes of its files.

        Files that are never used are not read. `verify_files` checks the SHA-256 of all.

        Args:
            folder: The folder of the bundle.
            digest: The digest that the bundle must have, as `kdedge info` prints it.

        Raises:
            UsageError: If the folder has no manifest, or `digest` is not a digest.
            IntegrityError: If the manifest is damaged or has another digest, or a file is
                missing, unlisted, a link, or of another size.
        """
        folder = Path(folder)
        if not (folder / MANIFEST).exists():
            raise _no_bundle(folder)
        manifest = read_manifest(folder)
        require_digest(manifest.digest(), digest)
        _check_file_names(folder, manifest)
        for name, entry in manifest.files.items():
            check_size(folder, name, entry["bytes"])
        return cls(folder, manifest, VerifiedFiles(folder, manifest.files))

    def verify_files(self) -> None:
        """Read every file again and compare the labels of config.json with the manifest.

        Raises:
            IntegrityError: If a file is not what was exported.
        """
        for name, entry in self.manifest.files.items():
            verify_file(self.folder, name, size=entry["bytes"], sha256=entry["sha256"])
        self.verify_labels()

    def verify_labels(self) -> None:
        """Compare the labels of config.json, if it has any, with those of the manifest.

        Raises:
            IntegrityError: If they differ.
        """
        if "config.json" not in self.manifest.files:
            return
        config = self.json("config.json")
        labels = config.get("id2label") if isinstance(config, dict) else None
        if labels is None or self.manifest.spec.kind == "regression":
            return
        expected = {str(i): label for i, label in enumerate(self.manifest.spec.labels)}
        if labels != expected:
            raise IntegrityError(
                "config.json and the manifest name different labels",
                f"config.json: {str(labels)[:120]}; manifest: {str(expected)[:120]}",
                "copy the bundle again from its source",
            )

    def json(self, name: str) -> Any:
        """Parse a JSON file. Raises IntegrityError if it is not JSON, or has too many values."""
        content = self.contents[name]
        structure = sum(content.count(mark) for mark in (b"[", b"{", b","))
        if structure > MAX_STRUCTURE:
            raise IntegrityError(
                f"{name} of the bundle is too large",
                f"{structure:,} brackets and commas, {MAX_STRUCTURE:,} are allowed",
                "do not use this bundle",
            )
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            raise IntegrityError(
                f"{name} of the bundle is not JSON", str(error)[:200], "export again"
            ) from error


def _no_bundle(folder: Path) -> UsageError:
    """Return the error for a folder without a manifest; it names bundles below the folder."""
    if not folder.exists():
        return UsageError(
            "this is not a bundle",
            f"{folder.absolute()} does not exist",
            "name a folder made by `kdedge export`, such as runs/NAME/bundle",
        )
    if folder.is_file():
        return UsageError(
            "this is not a bundle", f"{folder} is a file", "if it is a zip of a bundle, unzip it"
        )
    below = [*folder.glob(f"bundle/{MANIFEST}"), *folder.glob(f"*/bundle/{MANIFEST}")]
    names = " or ".join(str(manifest.parent) for manifest in sorted(below))
    return UsageError(
        "this is not a bundle",
        f"{folder} has no {MANIFEST}",
        f"name {names}" if names else "name a folder made by `kdedge export`",
    )


def _check_file_names(folder: Path, manifest: Manifest) -> None:
    """Check that the manifest lists the right files and that the folder holds no others."""
    listed = set(manifest.files)
    for name in sorted(listed - set(LAYOUT)):
        raise IntegrityError(
            "the manifest lists a file that is not part of a bundle",
            repr(name)[:200],
            "do not use this bundle",
        )
    required = {"tokenizer.json", "golden.json", *manifest.precisions.values()}
    for name in sorted(required - listed):
        raise IntegrityError("the manifest does not list a required file", name, "export again")
    for name in file_names(folder):
        if name not in listed and name not in UNLISTED:
            raise IntegrityError(
                "the bundle contains a file that its manifest does not list",
                name[:200],
                "remove it, or copy the bundle again",
            )
    for name in UNLISTED:
        if os.path.lexists(folder / name):
            check_regular_file(folder, name, max_bytes=size_limit(name))
