"""A changed bundle is rejected before any part of it is used, and the error names the file."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import factories
import numpy as np
import onnx
import pytest
from forgery import assert_rejected, edit_manifest, forge_file
from onnx import TensorProto, helper, numpy_helper

from kdedge.errors import CheckFailed, IntegrityError, UsageError
from kdedge.runtime import Bundle, Classifier, text_encoder, verified_file
from kdedge.runtime.golden import replay
from kdedge.runtime.layout import MAX_TEXT_BYTES, SIGNATURE

FILES = ["kdedge.json", *factories.BUNDLE_FILES]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return factories.copy_bundle(factories.tiny_bundle("bilstm"), tmp_path)


def test_the_untouched_copy_opens(bundle: Path) -> None:
    assert sorted(Bundle.open(bundle).contents) == sorted(set(FILES) - {"kdedge.json"})
    assert sorted(
        path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()
    ) == sorted(FILES)


# Damage


@pytest.mark.parametrize("name", [name for name in FILES if name != "kdedge.json"])
def test_every_damaged_file_is_rejected_and_named(
    bundle: Path, name: str, nothing_used: None
) -> None:
    path = bundle / name
    content = path.read_bytes()
    random = np.random.default_rng(len(content))
    damaged = [content + b"\0", content[:-1], content[: len(content) // 2], b"", content[::-1]]
    for place in [0, len(content) - 1, *random.integers(0, len(content), 36)]:
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(random.integers(8))
        damaged.append(bytes(flipped))
    for other in damaged:
        path.write_bytes(other)
        assert_rejected(bundle, name)
    path.unlink()
    assert_rejected(bundle, name)


@pytest.mark.parametrize("name", ["onnx/model_quantized.onnx", "tokenizer.json"])
def test_a_damaged_file_is_rejected_when_it_is_used(
    bundle: Path, name: str, nothing_used: None
) -> None:
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    with pytest.raises(IntegrityError, match=name):
        Classifier.load(bundle, "int8")


def test_files_that_are_not_used_are_not_read(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = []
    read = verified_file.read_verified_file

    def record(folder: Path, name: str, *, size: int, sha256: str) -> bytes:
        names.append(name)
        return read(folder, name, size=size, sha256=sha256)

    monkeypatch.setattr(verified_file, "read_verified_file", record)
    Classifier.load(bundle, "int8").predict("the film was good")
    assert sorted(names) == ["config.json", "onnx/model_quantized.onnx", "tokenizer.json"]


def test_config_and_golden_labels_must_agree_with_the_manifest(bundle: Path) -> None:
    """A forger who swaps two labels and writes a new digest must also change other files."""
    edit_manifest(bundle, lambda document: document["spec"]["labels"].reverse())
    with pytest.raises(IntegrityError, match=r"config\.json and the manifest"):
        Classifier.load(bundle)
    config = json.loads((bundle / "config.json").read_text())
    config["id2label"] = {"0": "good", "1": "bad"}
    forge_file(bundle, "config.json", json.dumps(config).encode())
    Classifier.load(bundle)
    with pytest.raises(IntegrityError, match=r"golden\.json and the manifest"):
        replay(Bundle.open(bundle))


def test_a_pinned_digest_refuses_every_other_bundle(bundle: Path, nothing_used: None) -> None:
    digest = Bundle.open(bundle).manifest.digest()
    assert Bundle.open(bundle, digest).manifest.digest() == digest
    edit_manifest(bundle, lambda document: document.update(name="other"))
    with pytest.raises(IntegrityError, match="another bundle than the pinned one"):
        Classifier.load(bundle, digest=digest)
    with pytest.raises(UsageError, match="64 hexadecimal digits"):
        Classifier.load(bundle, digest=digest.removeprefix("sha256:"))


def test_swapped_files_are_rejected(bundle: Path, nothing_used: None) -> None:
    first, second = (bundle / "onnx" / name for name in ("model.onnx", "model_quantized.onnx"))
    first.rename(bundle / "onnx" / "x")
    second.rename(first)
    (bundle / "onnx" / "x").rename(second)
    assert_rejected(bundle, "onnx/model")


# Files in the folder


@pytest.mark.parametrize(
    "name", ["evil.py", "onnx/model.onnx.data", ".hidden", "sub/pytorch_model.bin"]
)
def test_an_unlisted_file_is_rejected(bundle: Path, name: str, nothing_used: None) -> None:
    (bundle / name).parent.mkdir(exist_ok=True)
    (bundle / name).write_text("x")
    assert_rejected(bundle, name)


@pytest.mark.parametrize("name", FILES)
def test_a_link_to_the_right_bytes_is_rejected(bundle: Path, name: str, nothing_used: None) -> None:
    elsewhere = bundle.parent / "elsewhere"
    (bundle / name).rename(elsewhere)
    (bundle / name).symlink_to(elsewhere)
    assert_rejected(bundle, name)


@pytest.mark.parametrize("kind", ["link", "dangling link", "folder", "large", "pipe"])
def test_a_signature_that_is_no_plain_file_is_rejected(
    bundle: Path, kind: str, nothing_used: None
) -> None:
    """The manifest does not list kdedge.sig, and `kdedge push` uploads it."""
    secret, signature = bundle.parent / "secret", bundle / SIGNATURE
    secret.write_text("a private key")
    if kind == "link":
        signature.symlink_to(secret)
    elif kind == "dangling link":
        signature.symlink_to(bundle.parent / "missing")
    elif kind == "folder":
        signature.mkdir()
    elif kind == "large":
        signature.touch()
        os.truncate(signature, MAX_TEXT_BYTES + 1)
    elif hasattr(os, "mkfifo"):
        os.mkfifo(signature)
    else:
        pytest.skip("no pipes on this system")
    assert_rejected(bundle, SIGNATURE)


def test_a_linked_folder_is_rejected(bundle: Path, nothing_used: None) -> None:
    (bundle / "onnx").rename(bundle.parent / "onnx")
    (bundle / "onnx").symlink_to(bundle.parent / "onnx")
    assert_rejected(bundle, "onnx")


def test_a_hard_link_with_the_right_bytes_is_accepted(bundle: Path) -> None:
    """Package caches and container layers create hard links."""
    os.link(bundle / "onnx" / "model.onnx", bundle.parent / "elsewhere")
    assert Classifier.load(bundle).predict("the film was good").label in ("bad", "good")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
@pytest.mark.parametrize("name", ["tokenizer.json", "kdedge.json"])
def test_a_pipe_is_rejected_without_waiting(bundle: Path, name: str, nothing_used: None) -> None:
    (bundle / name).unlink()
    os.mkfifo(bundle / name)
    assert_rejected(bundle, name)


def test_a_folder_without_a_manifest_is_not_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a bundle"):
        Bundle.open(tmp_path)
    with pytest.raises(UsageError, match="does not exist"):
        Bundle.open(tmp_path / "missing")


def test_bundles_below_a_folder_are_named(bundle: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(bundle, run / "bilstm" / "bundle")
    with pytest.raises(UsageError) as error:
        Bundle.open(run)
    assert error.value.hint == f"name {run / 'bilstm' / 'bundle'}"


# Forged files with valid hashes


def graph_bytes(
    nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto], outputs: Any = 2, **settings: Any
) -> bytes:
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"])
        for name in ("input_ids", "attention_mask")
    ]
    logits = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", outputs])]
    return bytes(
        helper.make_model(
            helper.make_graph(nodes, "g", inputs, logits, weights), ir_version=8, **settings
        ).SerializeToString()
    )


def bag_of_words(table: onnx.TensorProto, last: str = "Identity", domain: str = "") -> bytes:
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["each"]),
        helper.make_node("ReduceSum", ["each", "axes"], ["sum"], keepdims=0),
        helper.make_node(last, ["sum"], ["logits"], domain=domain),
    ]
    opsets = [helper.make_opsetid("", 17)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return graph_bytes(
        nodes, [table, numpy_helper.from_array(np.array([1]), "axes")], opset_imports=opsets
    )


def table(rows: int = 200) -> onnx.TensorProto:
    return numpy_helper.from_array(
        np.random.default_rng(0).normal(size=(rows, 2)).astype(np.float32), "table"
    )


def external(location: str) -> onnx.TensorProto:
    tensor = TensorProto(
        name="table", data_type=TensorProto.FLOAT, dims=[200, 2], data_location=TensorProto.EXTERNAL
    )
    for key, value in {"location": location, "offset": "0", "length": "1600"}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def load_fp32(folder: Path) -> Classifier:
    return Classifier.load(folder, "fp32")


def test_a_forged_graph_with_a_valid_hash_works(bundle: Path) -> None:
    forge_file(bundle, "onnx/model.onnx", bag_of_words(table()))
    assert load_fp32(bundle).predict("the film").label in ("bad", "good")


@pytest.mark.parametrize(
    "where",
    [
        "README.md",
        "secret.bin",
        "{folder}/secret.bin",
        "../secret.bin",
        "onnx/model_quantized.onnx",
    ],
)
def test_external_data_is_rejected(
    bundle: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (bundle, bundle.parent):
        np.zeros(400, np.float32).tofile(folder.parent / "secret.bin")
    monkeypatch.chdir(bundle.parent)  # a graph from memory might look for its data here
    np.zeros(400, np.float32).tofile("secret.bin")
    forge_file(
        bundle, "onnx/model.onnx", bag_of_words(external(where.format(folder=bundle.parent)))
    )
    with pytest.raises(IntegrityError, match="cannot load the graph"):
        load_fp32(bundle)


def test_a_custom_operator_is_rejected(bundle: Path) -> None:
    forge_file(bundle, "onnx/model.onnx", bag_of_words(table(), "Evil", "evil.ops"))
    with pytest.raises(IntegrityError, match="cannot load the graph"):
        load_fp32(bundle)


def test_a_graph_of_another_shape_is_rejected(bundle: Path) -> None:
    edit_manifest(bundle, lambda document: document["spec"].update(labels=["a", "b", "c"]))
    forge_file(bundle, "config.json", b"{}")
    with pytest.raises(IntegrityError, match="does not match the manifest"):
        load_fp32(bundle)


def test_token_ids_outside_of_the_embedding_are_an_error(bundle: Path) -> None:
    forge_file(bundle, "onnx/model.onnx", bag_of_words(table(rows=3)))
    with pytest.raises(IntegrityError, match="the graph fails"):
        load_fp32(bundle).predict("the film was good")


def test_nan_logits_are_an_error(bundle: Path) -> None:
    forge_file(
        bundle,
        "onnx/model.onnx",
        bag_of_words(numpy_helper.from_array(np.full((200, 2), np.nan, np.float32), "table")),
    )
    with pytest.raises(CheckFailed, match="not a number"):
        load_fp32(bundle).predict("the film was good")


HOSTILE = {
    "not JSON": b"\x80pickle",
    "empty": b"{}",
    "no model": b'{"version": "1.0", "model": null}',
    "unknown model": b'{"version": "1.0", "added_tokens": [], "model": {"type": "Evil"}}',
    "invalid vocabulary": b'{"version": "1.0", "added_tokens": [], '
    b'"model": {"type": "WordPiece", "vocab": [1, 2]}}',
    "deep": b'{"a":' * 5000 + b"1" + b"}" * 5000,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_tokenizer_is_an_integrity_error(bundle: Path, kind: str) -> None:
    forge_file(bundle, "tokenizer.json", HOSTILE[kind])
    with pytest.raises(IntegrityError, match=r"tokenizer\.json"):
        Classifier.load(bundle)


def test_a_panic_of_the_tokenizer_is_an_integrity_error(bundle: Path) -> None:
    """PanicException of `tokenizers` is not a subclass of Exception."""

    class Panic(BaseException):
        pass

    def panic() -> None:
        raise Panic("called `Option::unwrap()` on a `None` value")

    with pytest.raises(IntegrityError, match="unwrap"):
        text_encoder.call_tokenizer(panic)


def test_a_malformed_golden_file_is_an_error(bundle: Path) -> None:
    for content in (
        b"{}",
        b"[]",
        b'{"tolerance": {"fp32": 1, "int8": 1}, "rows": []}',
        b'{"tolerance": {"fp32": NaN, "int8": 1}, "rows": [{}]}',
        b"\xff",
    ):
        forge_file(bundle, "golden.json", content)
        with pytest.raises(IntegrityError, match=r"golden\.json"):
            replay(Bundle.open(bundle))
