"""The folder that goes to the device: its layout, its manifest, and proof that its files are the ones written.

bundle/  README.md  config.json  tokenizer.json  tokenizer_config.json  golden.json  kdedge.json
         onnx/model.onnx  onnx/model_quantized.onnx  onnx/model_fp16.onnx  onnx/model_portable.onnx
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kdedge.errors import IntegrityError, UsageError
from kdedge.io.atomic import json_text, write_atomic
from kdedge.runtime.metrics import METRICS, metric_fits
from kdedge.runtime.spec import KINDS, TaskSpec

FORMAT = 2
"""2 added the portable and the fp16 file."""

MANIFEST = "kdedge.json"
PRECISIONS = {
    "fp32": "onnx/model.onnx",
    "fp16": "onnx/model_fp16.onnx",
    "int8": "onnx/model_quantized.onnx",
    "portable": "onnx/model_portable.onnx",
}
"""Name of a file -> its place. fp16: weights alone. int8: for ONNX Runtime on CPUs. portable: int8 in plain operators, for any runtime."""

LAYOUT = (
    "README.md",
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "golden.json",
    *PRECISIONS.values(),
)
"""Every file a bundle may hold beside its manifest."""

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
MANIFEST_BYTES = 4 << 20
GRAPH_BYTES = 2 << 30
"""A protobuf message, which an ONNX file is, cannot be larger."""

TEXT_BYTES = 128 << 20
"""Most bytes of any other file."""

PLAIN_READ = (
    os.O_RDONLY
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_BINARY", 0)
)
"""Flags that neither follow a link nor wait at a pipe."""


@dataclass(frozen=True)
class Manifest:
    """What kdedge.json says.

    inputs: names of the graph's inputs, each int64 (B, T).
    precisions: name -> ONNX file. scheme: how the int8 file, and the portable one, were quantized.
    parity, scores: figures measured at export. teacher: its description, for people.
    sources: hashes and settings that decide whether the bundle is current.
    files: path -> {"sha256", "bytes"} of every other file.
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

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "spec": self.spec.to_json(), "inputs": list(self.inputs)}

    @classmethod
    def from_json(cls, document: Any) -> Manifest:
        """Raises IntegrityError that names the first field which is not what it must be."""
        if not isinstance(document, dict):
            raise _broken("it is not a table")
        version = document.get("format")
        if not isinstance(version, int) or not _is_int(version, 1):
            raise _broken(f"format is {version!r}, not a number from 1")
        if version > FORMAT:
            raise IntegrityError(
                "this bundle was made by a newer kdedge",
                f"format {version}; this kdedge reads up to {FORMAT}",
                "pip install --upgrade kdedge",
            )
        for name, fits in _FIELDS.items():
            if not fits(document.get(name)):
                raise _broken(f"{name} is {str(document.get(name))[:80]!r}")
        known = {name: document[name] for name in _FIELDS if name in document}
        spec = TaskSpec.from_json(
            {name: document["spec"][name] for name in ("name", "kind", "labels", "metric", "pair")}
        )
        return cls(**{**known, "spec": spec, "inputs": tuple(document["inputs"])})


def _is_int(value: Any, low: int, high: int = 1 << 31) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_text(value: Any) -> bool:
    """A string that can be printed: JSON may spell half a character."""
    return isinstance(value, str) and not any(
        "\ud800" <= character <= "\udfff" for character in value
    )


def _is_spec(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and _is_text(value.get("name"))
        and value.get("kind") in KINDS
        and isinstance(value.get("pair"), bool)
        and isinstance(value.get("metric"), str)
        and value["metric"] in METRICS
        and metric_fits(value["metric"], value["kind"])
        and isinstance(value.get("labels"), list)
        and 1 <= len(value["labels"]) <= 100_000
        and all(_is_text(label) and label for label in value["labels"])
        and len(set(value["labels"])) == len(value["labels"])
        and (value["kind"] != "regression" or len(value["labels"]) == 1)
    )


def _is_file_table(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(entry, dict)
        and isinstance(entry.get("sha256"), str)
        and _is_int(entry.get("bytes"), 0, _most_bytes(name))
        for name, entry in value.items()
    )


def _most_bytes(name: str) -> int:
    return GRAPH_BYTES if name.endswith(".onnx") else TEXT_BYTES


def _are_inputs(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= len(INPUTS)
        and all(name in INPUTS for name in value)
        and {"input_ids", "attention_mask"} <= set(value)
    )


def _is_table(value: Any) -> bool:
    return isinstance(value, dict)


_FIELDS: dict[str, Any] = {
    "format": lambda v: _is_int(v, 1),
    "name": lambda v: _is_text(v) and v != "",
    "kdedge": _is_text,
    "spec": _is_spec,
    "max_length": lambda v: _is_int(v, 2, 1 << 20),
    "pad_token_id": lambda v: _is_int(v, 0),
    "inputs": lambda v: _are_inputs(v) and len(set(v)) == len(v),
    "precisions": lambda v: (
        isinstance(v, dict)
        and bool(v)
        and all(PRECISIONS.get(name) == path for name, path in v.items())
    ),
    "scheme": lambda v: v is None or _is_table(v),
    "parity": _is_table,
    "scores": _is_table,
    "teacher": _is_table,
    "sources": _is_table,
    "files": _is_file_table,
}
"""Field of kdedge.json -> whether a value may stand there."""


def _broken(found: str) -> IntegrityError:
    return IntegrityError(
        f"the manifest {MANIFEST} is damaged", found, "copy the bundle again from where it was made"
    )


@dataclass(frozen=True)
class Bundle:
    """A checked folder. `contents` are the bytes that were hashed: what is used is what was checked."""

    folder: Path
    manifest: Manifest
    contents: Mapping[str, bytes]

    @classmethod
    def open(cls, folder: str | Path) -> Bundle:
        """Read and check every file before anything of it is used.

        Raises UsageError where there is no bundle, IntegrityError that names the file otherwise.
        """
        folder = Path(folder)
        if not (folder / MANIFEST).exists():
            raise UsageError(
                "this is not a bundle",
                f"{folder} holds no {MANIFEST}",
                "name a folder made by `kdedge export`, such as runs/quickstart/tinybert/bundle",
            )
        manifest = _read_manifest(folder)
        _check_names(folder, manifest)
        return cls(
            folder,
            manifest,
            {name: _read_checked(folder, name, entry) for name, entry in manifest.files.items()},
        )

    def json(self, name: str) -> Any:
        """One of the JSON files, parsed. Raises IntegrityError where it is not JSON."""
        try:
            return json.loads(self.contents[name])
        except (ValueError, RecursionError) as error:
            raise IntegrityError(
                f"{name} of the bundle is not JSON", str(error)[:200], "export again"
            ) from error


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Hash every other file of a finished folder and write kdedge.json, last of all."""
    names = sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )
    files = {name: _describe((folder / name).read_bytes()) for name in names if name != MANIFEST}
    write_atomic(folder / MANIFEST, json_text({**manifest.to_json(), "files": files}))


def _describe(content: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def _read_manifest(folder: Path) -> Manifest:
    content = _read_plain_file(folder, MANIFEST, MANIFEST_BYTES)
    try:
        document = json.loads(content, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise _broken(f"it is not JSON: {str(error)[:200]}") from error
    return Manifest.from_json(document)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number of JSON")


def _check_names(folder: Path, manifest: Manifest) -> None:
    """Only files of the layout, all of them there that must be, and none beside them."""
    listed = set(manifest.files)
    for name in sorted(listed - set(LAYOUT)):
        raise IntegrityError(
            "the manifest lists a file that no bundle has",
            repr(name)[:200],
            "do not use this bundle",
        )
    needed = {"tokenizer.json", "golden.json", *manifest.precisions.values()}
    for name in sorted(needed - listed):
        raise IntegrityError(
            "the manifest does not list a file that every bundle has", name, "export again"
        )
    for found, folders, names in os.walk(folder):
        for name in [*names, *(f for f in folders if os.path.islink(os.path.join(found, f)))]:
            path = Path(found, name).relative_to(folder).as_posix()
            if path not in listed and path != MANIFEST:
                raise IntegrityError(
                    "a file stands in the bundle that its manifest does not list",
                    path[:200],
                    "remove it, or copy the bundle again",
                )


def _read_checked(folder: Path, name: str, entry: Mapping[str, Any]) -> bytes:
    content = _read_plain_file(folder, name, int(entry["bytes"]))
    if len(content) != entry["bytes"]:
        raise _changed(name, f"{len(content)} bytes, {entry['bytes']} were written")
    if hashlib.sha256(content).hexdigest() != entry["sha256"]:
        raise _changed(name, "its SHA-256 is another one")
    return content


def _read_plain_file(folder: Path, name: str, limit: int) -> bytes:
    """Bytes of a regular file, no symbolic link on the way, at most `limit` of them.

    Hard links are let pass: package caches and container layers make them, and the hash judges the content.
    """
    path = folder / name
    try:
        for step in (path, *(p for p in path.parents if p.is_relative_to(folder) and p != folder)):
            if step.is_symlink():
                raise _changed(name, "it is a link, and a bundle holds none")
        with os.fdopen(os.open(path, PLAIN_READ), "rb") as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise _changed(name, "it is not a regular file")
            if status.st_size > limit:
                raise _changed(name, f"{status.st_size} bytes, {limit} at most were expected")
            return stream.read(limit + 1)
    except OSError as error:
        raise _changed(name, error.strerror or str(error)) from error


def _changed(name: str, found: str) -> IntegrityError:
    return IntegrityError(
        f"{name} of the bundle is not the file that was written",
        found,
        "copy the bundle again from where it was made",
    )


def is_finite_number(value: Any) -> bool:
    """Whether a value of a JSON file is a number one can calculate with."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
