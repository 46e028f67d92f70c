"""A bundle is the folder that goes to the device. A file is verified when it is first read.

bundle/  README.md  config.json  tokenizer.json  tokenizer_config.json  golden.json  kdedge.json
         kdedge.sig (if it is signed)  sbom.cdx.json (if it was requested)
         onnx/model.onnx  onnx/model_quantized.onnx  onnx/model_portable.onnx
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from kdedge.errors import IntegrityError, UsageError
from kdedge.io.atomic import json_text, write_atomic
from kdedge.printable import printable
from kdedge.runtime.digest import DIGEST, document_digest, require_digest
from kdedge.runtime.metrics import metric_fits
from kdedge.runtime.spec import KINDS, TaskSpec
from kdedge.runtime.verified_file import (
    VerifiedFiles,
    check_size,
    read_regular_file,
    verify_file,
)

FORMAT = 1
"""Version of kdedge.json that this code writes and reads."""

MANIFEST = "kdedge.json"
SIGNATURE = "kdedge.sig"
"""An optional file that signs the manifest, and is therefore not listed in it."""

SBOM = "sbom.cdx.json"
"""An optional bill of materials, see `kdedge export --sbom`."""

UNLISTED = (MANIFEST, SIGNATURE)
"""Files of a bundle that its manifest does not list."""

PRECISIONS = {
    "fp32": "onnx/model.onnx",
    "int8": "onnx/model_quantized.onnx",
    "portable": "onnx/model_portable.onnx",
}
"""Name of an ONNX file -> its path in the bundle.

int8 is for ONNX Runtime on CPUs; portable is int8 in plain ONNX operators, for any runtime."""

LAYOUT = (
    "README.md",
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "golden.json",
    SBOM,
    *PRECISIONS.values(),
)
"""All files that a manifest may list."""

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
MAX_MANIFEST_BYTES = 4 << 20
MAX_GRAPH_BYTES = 2 << 30
"""The limit of a protobuf message, and so of an ONNX file."""

MAX_TEXT_BYTES = 16 << 20
"""The limit of every other file, except tokenizer.json."""

MAX_TOKENIZER_BYTES = 128 << 20
MAX_LABELS = 100_000
MAX_LENGTH = 8192
"""Most tokens of a text: time and memory of a transformer grow with their square."""

MAX_STRUCTURE = 2_000_000
"""Most brackets and commas of a JSON file: each can become an object in memory."""


@dataclass(frozen=True)
class Manifest:
    """The content of kdedge.json.

    Attributes:
        inputs: Names of the graph's inputs, each int64. *Shape:* (batch, tokens)
        precisions: Name -> path of each ONNX file in the bundle.
        kdedge: Version that wrote the bundle.
        scheme: How the int8 and portable files were quantized; None without such files.
        parity: Differences between torch and ONNX Runtime, measured at export.
        scores: Scores of teacher and student on the test split.
        teacher: A description of the teacher, for people.
        sources: Hashes and settings that decide whether the bundle is current.
        files: Path -> {"sha256", "bytes"} of every other file.
    """

    name: str
    spec: TaskSpec
    max_length: int
    pad_token_id: int
    inputs: tuple[str, ...]
    precisions: Mapping[str, str]
    kdedge: str
    scheme: Mapping[str, Any] | None = None
    parity: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, Any] = field(default_factory=dict)
    teacher: Mapping[str, Any] = field(default_factory=dict)
    sources: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    format: int = FORMAT

    def size(self, precision: str | None = None) -> int:
        """Return the bytes of all listed files, or of those that one precision needs."""
        others = set(self.precisions.values())
        if precision is None:
            others.clear()
        else:
            others.remove(self.precisions[precision])
        return sum(entry["bytes"] for name, entry in self.files.items() if name not in others)

    def digest(self) -> str:
        """Return the digest that identifies the bundle, with all of its files.

        It is `sha256:` and the SHA-256 of the manifest as canonical JSON: sorted keys, no white
        space, UTF-8.

        Example:
            ```python
            digest = Bundle.open("bundle").manifest.digest()
            Classifier.load("bundle", digest=digest)  # raises if the bundle is another one
            ```
        """
        return document_digest(json.loads(json_text(self.to_json())))

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "spec": self.spec.to_json(), "inputs": list(self.inputs)}

    @classmethod
    def from_json(cls, document: Any) -> Manifest:
        """Validate a parsed kdedge.json; its field `digest` is not compared.

        Raises:
            IntegrityError: If a field is invalid or unknown; the message names it.
        """
        if not isinstance(document, dict):
            raise _damaged("it is not a JSON object")
        _check_format(document.get("format"))
        for name, is_valid in _FIELDS.items():
            if not is_valid(document.get(name)):
                raise _damaged(f"{name} is {str(document.get(name))[:80]!r}")
        for name in document.keys() - _FIELDS.keys() - {DIGEST}:
            raise _damaged(f"it has the unknown field {name[:80]!r}")
        values: dict[str, Any] = {name: document.get(name) for name in _FIELDS}
        values["spec"] = TaskSpec.from_json(document["spec"])
        values["inputs"] = tuple(document["inputs"])
        return cls(**values)


def _check_format(version: Any) -> None:
    if not _is_int(version, 1):
        raise _damaged(f"format is {version!r}, not a positive integer")
    if version > FORMAT:
        raise IntegrityError(
            "this bundle was exported by a newer kdedge",
            f"format {version}; this kdedge reads up to {FORMAT}",
            "pip install --upgrade kdedge-toolkit",
        )


def _is_int(value: Any, low: int, high: int = 1 << 31) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_text(value: Any) -> bool:
    """Check for a string that can be encoded: JSON can spell a lone surrogate."""
    return isinstance(value, str) and not any("\ud800" <= char <= "\udfff" for char in value)


def _is_name(value: Any) -> bool:
    return _is_text(value) and value != ""


def _is_dict(value: Any) -> bool:
    return isinstance(value, dict)


def _is_spec(value: Any) -> bool:
    if not isinstance(value, dict) or not value.keys() <= _SPEC_FIELDS:
        return False
    kind, metric = value.get("kind"), value.get("metric")
    if not isinstance(kind, str) or kind not in KINDS:
        return False
    if not isinstance(metric, str) or not metric_fits(metric, kind):
        return False
    if not _are_labels(value.get("labels")):
        return False
    if kind == "regression" and len(value["labels"]) != 1:
        return False
    has_pair = isinstance(value.get("pair"), bool)
    return has_pair and _is_text(value.get("name")) and _is_share(value.get("threshold", 0.5))


def _is_share(value: Any) -> bool:
    """Check for a number between 0 and 1, which are excluded."""
    return isinstance(value, float) and 0 < value < 1


def _are_labels(value: Any) -> bool:
    return (
        isinstance(value, list)
        and 1 <= len(value) <= MAX_LABELS
        and all(_is_name(label) for label in value)
        and len(set(value)) == len(value)
    )


def _are_inputs(value: Any) -> bool:
    return (
        isinstance(value, list)
        and all(name in INPUTS for name in value)
        and len(set(value)) == len(value)
        and {"input_ids", "attention_mask"} <= set(value)
    )


def _are_precisions(value: Any) -> bool:
    if not isinstance(value, dict) or not value:
        return False
    return all(PRECISIONS.get(name) == path for name, path in value.items())


def _are_files(value: Any) -> bool:
    return isinstance(value, dict) and all(_is_file(name, entry) for name, entry in value.items())


def _is_file(name: str, entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and entry.keys() == {"sha256", "bytes"}
        and isinstance(entry["sha256"], str)
        and _is_int(entry["bytes"], 0, size_limit(name))
    )


def size_limit(name: str) -> int:
    """Return the most bytes that a file of this name may have."""
    if name == MANIFEST:
        return MAX_MANIFEST_BYTES
    if name == "tokenizer.json":
        return MAX_TOKENIZER_BYTES
    return MAX_GRAPH_BYTES if name.endswith(".onnx") else MAX_TEXT_BYTES


_FIELDS: dict[str, Callable[[Any], bool]] = {
    "format": lambda value: _is_int(value, 1),
    "name": _is_name,
    "kdedge": _is_text,
    "spec": _is_spec,
    "max_length": lambda value: _is_int(value, 2, MAX_LENGTH),
    "pad_token_id": lambda value: _is_int(value, 0),
    "inputs": _are_inputs,
    "precisions": _are_precisions,
    "scheme": lambda value: value is None or _is_dict(value),
    "parity": _is_dict,
    "scores": _is_dict,
    "teacher": _is_dict,
    "sources": _is_dict,
    "files": _are_files,
}
"""Field of kdedge.json -> the check of its value."""

_SPEC_FIELDS = {"name", "kind", "labels", "metric", "pair", "threshold"}


def _damaged(detail: str) -> IntegrityError:
    return IntegrityError(
        f"the manifest {MANIFEST} is damaged", detail, "copy the bundle again from its source"
    )


@dataclass(frozen=True, repr=False)
class Bundle:
    """An open bundle.

    Attributes:
        contents: Path -> the bytes that were hashed. Use these, not the files: they cannot change.
            A folder's file is read and verified when it is first used.
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
            UsageError: If the folder has no manifest, or `digest` is no digest.
            IntegrityError: If the manifest or its digest is another one, or a file is missing,
                unlisted, or of another size.
        """
        folder = Path(folder)
        if not (folder / MANIFEST).exists():
            raise _no_bundle(folder)
        manifest = _read_manifest(folder)
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
        """Parse one of the JSON files. Raises IntegrityError if it is not JSON."""
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
    below = [*folder.glob(f"bundle/{MANIFEST}"), *folder.glob(f"*/bundle/{MANIFEST}")]
    names = " or ".join(str(manifest.parent) for manifest in sorted(below))
    return UsageError(
        "this is not a bundle",
        f"{folder} has no {MANIFEST}",
        f"name {names}" if names else "name a folder made by `kdedge export`",
    )


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Hash the files of a finished folder and write kdedge.json, as the last file."""
    files = {}
    for name in sorted(_file_names(folder)):
        if name not in UNLISTED:
            content = (folder / name).read_bytes()
            files[name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    listed = replace(manifest, files=files)
    document = {**listed.to_json(), DIGEST: listed.digest()}
    write_atomic(folder / MANIFEST, json_text(document))


def _file_names(folder: Path) -> Iterator[str]:
    """Walk all files and links below a folder; links to folders are not followed."""
    for parent, subfolders, files in os.walk(folder):
        links = [name for name in subfolders if os.path.islink(os.path.join(parent, name))]
        for name in [*files, *links]:
            yield Path(parent, name).relative_to(folder).as_posix()


def _read_manifest(folder: Path) -> Manifest:
    content = read_regular_file(folder, MANIFEST, max_bytes=MAX_MANIFEST_BYTES)
    try:
        document = json.loads(
            content, parse_constant=_reject_constant, object_pairs_hook=_unique_keys
        )
    except (ValueError, RecursionError) as error:
        raise _damaged(f"it is not JSON: {str(error)[:200]}") from error
    manifest = Manifest.from_json(document)
    _check_digest(document, manifest)
    return manifest


def _check_digest(document: dict[str, Any], manifest: Manifest) -> None:
    """Check that the manifest has the digest that was written into it."""
    try:
        digest = manifest.digest()
    except (ValueError, RecursionError) as error:
        raise _damaged(f"it has no canonical form: {str(error)[:200]}") from error
    if document.get(DIGEST) != digest:
        raise _damaged(f"its digest is {digest}, but it was written with {document.get(DIGEST)!r}")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Reject a key that an object has twice: readers differ in which of the two they use."""
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("an object has a key twice")
    return values


def _reject_constant(name: str) -> float:
    """Reject NaN and Infinity, which Python's parser would accept."""
    raise ValueError(f"{name} is not a JSON number")


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
    for name in _file_names(folder):
        if name not in listed and name not in UNLISTED:
            raise IntegrityError(
                "the bundle contains a file that its manifest does not list",
                name[:200],
                "remove it, or copy the bundle again",
            )
