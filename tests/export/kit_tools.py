"""Bundles for the tests of kits, and what compiles and runs the kits."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import factories
import onnxruntime
import pytest
from kdedge.export.calibrate import calibrate, unpadded_batches
from kdedge.export.fake_model import fake_quantized
from kdedge.export.options import INT8, ExportOptions
from kdedge.export.pack import ExportInput
from kdedge.export.qat import QatResult, QuantizedStudent

from kdedge.data.task import Task
from kdedge.nn.batching import PaddingCollator
from kdedge.nn.tokenization import encode
from kdedge.runtime import Bundle
from kdedge.runtime.manifest import write_manifest

NO_PAIR = 0xFFFFFFFF

DEBIAN = "deb http://deb.debian.org/debian trixie main"
"""The oldest Debian that packs the headers of ONNX Runtime."""


def static_bilstm(folder: Path, task_name: str = "single") -> Bundle:
    """Pack an untrained BiLSTM with calibrated ranges and 7-bit weights."""
    task = factories.TASKS[task_name]()
    return static_bundle(factories.export_input("bilstm", task), task, folder)


def static_bundle(made: ExportInput, task: Task, folder: Path) -> Bundle:
    """Pack the int8 file that `kdedge export` writes if calibration is enough."""
    from kdedge.export.build import build_bundle

    model = fake_quantized(made.model, INT8).eval()
    tokens = encode(made.tokenizer, task.train.texts, task.train.pairs, made.max_length)
    calibrate(model, made.model, unpadded_batches(PaddingCollator(0), tokens))
    result = QatResult(1.0, {}, {}, {}, "calibrated")
    quantized = QuantizedStudent(model, model, INT8, result)
    folder.parent.mkdir(parents=True, exist_ok=True)
    build_bundle(made, task, folder, ExportOptions(("int8",)), quantized=quantized)
    return Bundle.open(folder)


def change_tokenizer(bundle: Path, **parts: Any) -> Bundle:
    """Replace parts of a bundle's tokenizer.json and write its manifest again."""
    manifest = Bundle.open(bundle).manifest
    path = bundle / "tokenizer.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    for name, changes in parts.items():
        document[name] = {**(document[name] or {}), **changes}
    path.write_text(json.dumps(document), encoding="utf-8")
    write_manifest(bundle, manifest)
    return Bundle.open(bundle)


def set_temperature(bundle: Path, temperature: float = 0.4) -> Bundle:
    """Write a bundle's manifest again with another temperature."""
    manifest = replace(Bundle.open(bundle).manifest, temperature=temperature)
    write_manifest(bundle, manifest)
    return Bundle.open(bundle)


def other_bundle(bundle: Path, change: str) -> Path:
    """Copy a bundle within its folder, and change the name of the copy, or the labels."""
    folder = Path(shutil.copytree(bundle, bundle.with_name("other")))
    manifest = Bundle.open(folder).manifest
    if change == "name":
        write_manifest(folder, replace(manifest, name="other"))
        return folder
    labels = [f"other {label}" for label in manifest.spec.labels]
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["id2label"] = dict(enumerate(labels))
    config["label2id"] = {label: number for number, label in enumerate(labels)}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    write_manifest(folder, replace(manifest, spec=replace(manifest.spec, labels=tuple(labels))))
    return folder


def run(*command: str | Path, folder: Path | None = None, stdin: bytes = b"") -> str:
    """Run a program; a failure shows what it printed."""
    done = subprocess.run(command, cwd=folder, input=stdin, capture_output=True)
    output = done.stdout.decode(errors="replace")
    assert done.returncode == 0, f"{command}\n{output}\n{done.stderr.decode(errors='replace')}"
    return output


def require(*programs: str) -> None:
    """Skip a test if a program is missing."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


def missing(reason: str) -> NoReturn:
    """Skip a test, or fail it in CI, where registries are reachable."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def records(texts: Sequence[bytes], pairs: Sequence[bytes] | None) -> bytes:
    """Return texts as tokens_main.c reads them."""
    parts = []
    for i, text in enumerate(texts):
        pair = b"" if pairs is None else pairs[i]
        length = NO_PAIR if pairs is None else len(pair)
        parts.append(struct.pack("<II", len(text), length) + text + pair)
    return b"".join(parts)


def token_lines(rows: Iterable[dict[str, list[int]]]) -> list[str]:
    """Write tokens as tokens_main.c prints them."""
    lines = []
    for row in rows:
        both = zip(row["input_ids"], row["token_type_ids"], strict=True)
        lines.append("".join(f"{number}:{kind} " for number, kind in both))
    return lines


def onnxruntime_folder(folder: Path) -> Path:
    """Return a folder with the headers of ONNX Runtime and the library of the Python package."""
    library = next(Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*"), None)
    if library is None:
        missing("the Python package onnxruntime has no shared library on this machine")
    (folder / "lib").mkdir(parents=True)
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (folder / "lib" / name).symlink_to(library)
    (folder / "include").symlink_to(_headers(folder / "debian"))
    return folder


def _headers(folder: Path) -> Path:
    for place in (os.environ.get("ONNXRUNTIME_INCLUDE", ""), "/usr/include/onnxruntime"):
        if place and (Path(place) / "onnxruntime_cxx_api.h").is_file():
            return Path(place)
    return _debian_headers(folder)


def _debian_headers(folder: Path) -> Path:
    """Fetch the package libonnxruntime-dev into a folder without installing it."""
    require("apt-get", "dpkg-deb")
    for name in ("lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    key = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
    (folder / "sources.list").write_text(DEBIAN.replace("deb ", f"deb {key} ", 1) + "\n")
    settings = {
        "Dir::Etc::sourcelist": folder / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": folder / "lists",
        "Dir::Cache": folder / "cache",
        "APT::Sandbox::User": "root",
        "APT::Architecture": "amd64",
    }
    apt: list[str | Path] = ["apt-get", "-q"]
    for name, value in settings.items():
        apt += ["-o", f"{name}={value}"]
    for arguments in (["update"], ["download", "libonnxruntime-dev"]):
        if subprocess.run([*apt, *arguments], cwd=folder, capture_output=True).returncode:
            missing("the headers of ONNX Runtime are neither installed nor to be had from Debian")
    run("dpkg-deb", "-x", next(folder.glob("*.deb")), folder / "package")
    return folder / "package" / "usr" / "include" / "onnxruntime"


def install_node_modules(kit: Path) -> None:
    """Run `npm ci` in a kit; without the packages for graphics cards, which are large."""
    require("node", "npm")
    environment = {**os.environ, "ONNXRUNTIME_NODE_INSTALL": "skip"}
    command = ["npm", "ci", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=kit, env=environment, capture_output=True, text=True)
    if done.returncode:
        missing(f"npm ci failed: {done.stderr[-300:]}")
