"""kdedge.json: its digest, its fields, and every way in which it can be damaged."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import factories
import pytest
from forgery import assert_rejected, edit_manifest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdedge.errors import IntegrityError, KdedgeError
from kdedge.runtime import Bundle, Classifier, Manifest
from kdedge.runtime.manifest import read_manifest
from kdedge.runtime.manifest_fields import FORMAT


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return factories.copy_bundle(factories.tiny_bundle("bilstm"), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("bits", [1, pytest.param(8, marks=pytest.mark.soak)])
def test_a_flipped_bit_in_the_manifest_is_refused_or_changes_nothing(
    bundle: Path, bits: int
) -> None:
    """Flip bits of every byte: the digest covers labels, max_length, pad id and figures."""
    path, whole = bundle / "kdedge.json", Bundle.open(bundle).manifest
    content = path.read_bytes()
    unchanged = 0
    for place in range(len(content)):
        for bit in range(bits):
            flipped = bytearray(content)
            flipped[place] ^= 1 << (place + bit) % 8
            path.write_bytes(bytes(flipped))
            try:
                manifest = read_manifest(bundle)
            except IntegrityError:
                continue
            unchanged += 1
            assert manifest == whole
    # White space and the spelling of a number may change: 1e-05 and 1E-05 are the same.
    assert unchanged < bits * len(content) // 32


def test_swapped_labels_are_refused(bundle: Path, nothing_used: None) -> None:
    path = bundle / "kdedge.json"
    document = json.loads(path.read_text())
    document["spec"]["labels"].reverse()
    path.write_text(json.dumps(document))
    with pytest.raises(IntegrityError, match="its digest is sha256:"):
        Classifier.load(bundle)


def test_the_digest_ignores_layout_and_covers_all_fields(bundle: Path) -> None:
    path = bundle / "kdedge.json"
    document = json.loads(path.read_text())
    digest = document.pop("digest")
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert digest == "sha256:" + hashlib.sha256(text.encode()).hexdigest()
    reversed_document = dict(reversed(document.items()))
    path.write_text(json.dumps({**reversed_document, "digest": digest}, indent=3))
    assert Bundle.open(bundle).manifest.digest() == digest
    for change in ({"digest": None}, {"surprise": 1}):
        path.write_text(json.dumps({**document, "digest": digest, **change}))
        assert_rejected(bundle, "kdedge.json")


def test_a_key_twice_is_refused(bundle: Path, nothing_used: None) -> None:
    text = (bundle / "kdedge.json").read_text()
    (bundle / "kdedge.json").write_text(text.replace('"name":', '"name": "other", "name":', 1))
    assert_rejected(bundle, "twice")


@pytest.mark.parametrize(
    "name",
    [
        "../outside",
        "/etc/passwd",
        "onnx\\model.onnx",
        "onnx/../../outside",
        "onnx/model.onnx.data",
        "model.py",
        "pytorch_model.bin",
        "",
        ".",
        "C:/x",
    ],
)
def test_a_manifest_that_lists_another_file_is_rejected(
    bundle: Path, name: str, nothing_used: None
) -> None:
    (bundle.parent / "outside").write_text("secret")
    edit_manifest(
        bundle, lambda document: document["files"].update({name: {"sha256": "0" * 64, "bytes": 6}})
    )
    assert_rejected(bundle, repr(name))


@pytest.mark.parametrize("path", ["../outside", "onnx/other.onnx", "/dev/zero", None, 3])
def test_a_precision_with_another_path_is_rejected(
    bundle: Path, path: Any, nothing_used: None
) -> None:
    edit_manifest(bundle, lambda document: document["precisions"].update(fp32=path))
    assert_rejected(bundle, "precisions")


def test_a_manifest_of_a_newer_format_is_rejected(bundle: Path, nothing_used: None) -> None:
    edit_manifest(bundle, lambda document: document.update(format=FORMAT + 1, surprise=[1]))
    assert_rejected(bundle, "newer kdedge")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{",
        b"null",
        b'{"format": 1}',
        b"\xff\xfe{}",
        b"[" * 200_000,
        b"9" * 9000,
        b'{"format": NaN}',
    ],
)
def test_an_unreadable_manifest_is_rejected(
    bundle: Path, content: bytes, nothing_used: None
) -> None:
    (bundle / "kdedge.json").write_bytes(content)
    assert_rejected(bundle, "kdedge.json")


def test_huge_files_are_not_read(bundle: Path, nothing_used: None) -> None:
    """Sparse files of gigabytes: larger than listed, larger than allowed, a huge manifest."""
    for name in ("README.md", "onnx/model.onnx", "kdedge.json"):
        content = (bundle / name).read_bytes()
        os.truncate(bundle / name, 3 << 30)
        assert_rejected(bundle, name)
        (bundle / name).write_bytes(content)
    edit_manifest(
        bundle, lambda document: document["files"]["tokenizer.json"].update(bytes=1 << 30)
    )
    assert_rejected(bundle, "files")


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["\ud800", "fp32", "input_ids"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_any_value_in_a_manifest_is_valid_or_a_kdedge_error(
    bundle: Path, data: st.DataObject
) -> None:
    document = json.loads((bundle / "kdedge.json").read_text())
    table = document if data.draw(st.booleans()) else document["spec"]
    table[data.draw(st.sampled_from(sorted(table)))] = data.draw(json_values)
    try:
        manifest = Manifest.from_json(document)
    except KdedgeError:
        return
    assert all(isinstance(label, str) for label in manifest.spec.labels)
    json.dumps(manifest.to_json())
    " ".join([manifest.name, manifest.kdedge, manifest.spec.name, *manifest.spec.labels]).encode()
