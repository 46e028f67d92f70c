"""The files of a bundle: their names, and how large they may be."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

MANIFEST = "kdedge.json"
SIGNATURE = "kdedge.sig"
"""An optional file that signs the manifest, and is therefore not listed in it."""

UNLISTED = (MANIFEST, SIGNATURE)
"""Files of a bundle that its manifest does not list."""

AGREEMENT = "agreement.json"
"""An optional file: how often student and teacher agree on the validation texts."""

EVALUATION = "evaluation.json"
"""An optional file: users' texts to measure the bundle on, see `kdedge export --with-eval`."""

SBOM = "sbom.cdx.json"
"""An optional bill of materials, see `kdedge export --sbom`."""

PRECISIONS = {
    "fp32": "onnx/model.onnx",
    "int8": "onnx/model_quantized.onnx",
    "fp16": "onnx/model_fp16.onnx",
    "portable": "onnx/model_portable.onnx",
}
"""Name of an ONNX file -> its path in the bundle.

int8 is for ONNX Runtime on CPUs, fp16 for GPUs; portable is int8 in plain ONNX operators, for any
runtime."""

LAYOUT = (
    "README.md",
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "golden.json",
    AGREEMENT,
    EVALUATION,
    SBOM,
    *PRECISIONS.values(),
)
"""All files that a manifest may list."""

MAX_MANIFEST_BYTES = 4 << 20
MAX_GRAPH_BYTES = 2 << 30
"""The limit of a protobuf message, and so of an ONNX file."""

MAX_TEXT_BYTES = 16 << 20
"""The limit of every other file, except those below."""

MAX_TOKENIZER_BYTES = 128 << 20
MAX_EVALUATION_BYTES = 64 << 20


def size_limit(name: str) -> int:
    """Return the most bytes that a file of this name may have."""
    if name == MANIFEST:
        return MAX_MANIFEST_BYTES
    if name == "tokenizer.json":
        return MAX_TOKENIZER_BYTES
    if name == EVALUATION:
        return MAX_EVALUATION_BYTES
    return MAX_GRAPH_BYTES if name.endswith(".onnx") else MAX_TEXT_BYTES


def file_names(folder: Path) -> Iterator[str]:
    """Walk all files and links below a folder; links to folders are not followed."""
    for parent, subfolders, files in os.walk(folder):
        links = [name for name in subfolders if os.path.islink(os.path.join(parent, name))]
        for name in [*files, *links]:
            yield Path(parent, name).relative_to(folder).as_posix()
