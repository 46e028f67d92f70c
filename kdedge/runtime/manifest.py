"""The manifest of a bundle, kdedge.json: what the classifier predicts, and each file's hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from kdedge.io.atomic import json_text, write_atomic
from kdedge.runtime.digest import DIGEST, document_digest
from kdedge.runtime.layout import EVALUATION, MANIFEST, MAX_MANIFEST_BYTES, UNLISTED, file_names
from kdedge.runtime.manifest_fields import FIELDS, FORMAT, check_fields, damaged
from kdedge.runtime.spec import TaskSpec
from kdedge.runtime.verified_file import read_regular_file


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
        sources: Hashes and settings that the bundle was made from.
        files: Path -> {"sha256", "bytes"} of every other file.
        temperature: Logits are divided by it before the softmax, so that a probability of 0.9 is
            right in nine of ten texts. It was fitted on the validation split; 1 if it was not.
        clean: Steps of `kdedge.runtime.cleaning` that every text goes through first. A manifest
            without steps does not have the field.
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
    temperature: float = 1.0
    format: int = FORMAT
    clean: tuple[str, ...] = ()

    def size(self, precision: str | None = None) -> int:
        """Return the bytes of all listed files, or of those that one precision needs."""
        others = set(self.precisions.values())
        if precision is None:
            others.clear()
        else:
            others.remove(self.precisions[precision])
            others.add(EVALUATION)
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
        document = {**asdict(self), "spec": self.spec.to_json(), "inputs": list(self.inputs)}
        document["clean"] = list(self.clean)
        if not self.clean:
            del document["clean"]
        return document

    @classmethod
    def from_json(cls, document: Any) -> Manifest:
        """Validate a parsed kdedge.json; its field `digest` is not compared.

        Raises:
            IntegrityError: If a field is invalid or unknown; the message names it.
        """
        check_fields(document)
        values: dict[str, Any] = {name: document.get(name) for name in FIELDS}
        values["spec"] = TaskSpec.from_json(document["spec"])
        values["inputs"] = tuple(document["inputs"])
        values["clean"] = tuple(document.get("clean") or ())
        return cls(**values)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Hash the files of a finished folder and write kdedge.json, as the last file."""
    files = {}
    for name in sorted(file_names(folder)):
        if name not in UNLISTED:
            content = (folder / name).read_bytes()
            files[name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    listed = replace(manifest, files=files)
    document = {**listed.to_json(), DIGEST: listed.digest()}
    write_atomic(folder / MANIFEST, json_text(document))


def read_manifest(folder: Path) -> Manifest:
    """Read and validate the kdedge.json of a folder.

    Raises:
        IntegrityError: If it is missing or malformed, or its digest is not the one in it.
    """
    content = read_regular_file(folder, MANIFEST, max_bytes=MAX_MANIFEST_BYTES)
    try:
        document = json.loads(
            content, parse_constant=_reject_constant, object_pairs_hook=_unique_keys
        )
    except (ValueError, RecursionError) as error:
        raise damaged(f"it is not JSON: {str(error)[:200]}") from error
    manifest = Manifest.from_json(document)
    _check_digest(document, manifest)
    return manifest


def _check_digest(document: dict[str, Any], manifest: Manifest) -> None:
    """Check that the manifest has the digest that was written into it."""
    try:
        digest = manifest.digest()
    except (ValueError, RecursionError) as error:
        raise damaged(f"it has no canonical form: {str(error)[:200]}") from error
    if document.get(DIGEST) != digest:
        raise damaged(f"its digest is {digest}, but it was written with {document.get(DIGEST)!r}")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Reject a key that an object has twice: readers differ in which of the two they use."""
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("an object has a key twice")
    return values


def _reject_constant(name: str) -> float:
    """Reject NaN and Infinity, which Python's parser would accept."""
    raise ValueError(f"{name} is not a JSON number")
