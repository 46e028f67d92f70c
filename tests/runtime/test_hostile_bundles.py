"""Hostile bundles: swapped files, folders instead of files, invalid manifest fields, garbage with
valid hashes."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

import factories
import numpy as np
import onnx
import pytest
from forgery import edit_manifest, forge_file
from onnx import helper

from kdedge.errors import IntegrityError, KdedgeError, UsageError
from kdedge.runtime import Bundle, Classifier
from kdedge.runtime.layout import MANIFEST


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return factories.copy_bundle(factories.tiny_bundle("bilstm", "single"), tmp_path)


@pytest.mark.parametrize("first, second", itertools.combinations(factories.BUNDLE_FILES, 2))
def test_swapped_files_are_rejected(
    bundle: Path, first: str, second: str, nothing_used: None
) -> None:
    first_content = (bundle / first).read_bytes()
    second_content = (bundle / second).read_bytes()
    (bundle / first).write_bytes(second_content)
    (bundle / second).write_bytes(first_content)
    with pytest.raises(IntegrityError) as error:
        Classifier.load(bundle)
    message = str(error.value).splitlines()[0]
    assert first in message or second in message


@pytest.mark.parametrize("name", factories.BUNDLE_FILES)
def test_a_folder_instead_of_a_file_is_rejected(
    bundle: Path, name: str, nothing_used: None
) -> None:
    (bundle / name).unlink()
    (bundle / name).mkdir()
    with pytest.raises(IntegrityError) as error:
        Classifier.load(bundle)
    assert name in str(error.value).splitlines()[0]


def test_a_folder_instead_of_the_manifest_is_rejected(bundle: Path, nothing_used: None) -> None:
    (bundle / MANIFEST).unlink()
    (bundle / MANIFEST).mkdir()
    with pytest.raises((IntegrityError, UsageError), match=r"kdedge\.json"):
        Classifier.load(bundle)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="this user can read every file")
def test_an_unreadable_file_is_named(bundle: Path, nothing_used: None) -> None:
    (bundle / "golden.json").chmod(0)
    with pytest.raises(IntegrityError, match=r"golden\.json"):
        Classifier.load(bundle)


INVALID: dict[str, list[Any]] = {
    "format": [None, 0, -1, True, 1.0, "1", [1]],
    "name": [None, "", 3, ["x"], "half \ud800"],
    "kdedge": [None, 1, {}],
    "max_length": [None, 0, 1, -5, 2.5, "48", True, 1 << 40],
    "pad_token_id": [None, -1, 0.5, "0", False, 1 << 40],
    "inputs": [
        None,
        [],
        ["input_ids"],
        "input_ids",
        ["input_ids", "attention_mask", "labels"],
        ["input_ids", "attention_mask", "input_ids"],
        [["input_ids"]],
        [{}],
    ],
    "precisions": [
        None,
        {},
        [],
        {"int4": "onnx/model.onnx"},
        {"fp32": "onnx/model_quantized.onnx"},
        {"fp32": ["onnx/model.onnx"]},
        {"fp32": {}},
    ],
    "scheme": [[], "int8", 7, {"activations": ["static"]}, {"weight_bits": {}}],
    "parity": [None, [], 1],
    "scores": [
        None,
        [],
        "0.9",
        {"metric": ["accuracy"]},
        {"metric": 1},
        {"split_size": "many"},
        {"split_size": 2.5},
        {"split_size": -1},
        {"teacher": "high"},
        {"student": [0.9]},
        {"int8": True},
        {"fp32": 10**400},
    ],
    "teacher": [None, [], "big", {"model": 3}, {"model": ["big"]}, {"model": None}],
    "files": [
        None,
        [],
        {"README.md": None},
        {"README.md": {"bytes": 3}},
        {"README.md": {"sha256": 3, "bytes": 3}},
        {"README.md": {"sha256": "0" * 64, "bytes": -1}},
    ],
    "spec": [None, [], {}, "classification"],
}
"""Field of kdedge.json -> invalid values."""

INVALID_SPEC: dict[str, list[Any]] = {
    "name": [None, 3],
    "kind": [None, "ranking", 3, ["classification"], {}],
    "labels": [
        None,
        [],
        {},
        "bad",
        ["bad", "bad"],
        ["bad", ""],
        ["bad", 3],
        ["bad", None],
        ["bad", "\udfff"],
        [["bad"], ["good"]],
    ],
    "metric": [None, "accurracy", "pearson", ["accuracy"], {}],
    "pair": [None, 0, "false"],
}


@pytest.mark.parametrize(
    "field, value", [(field, value) for field, values in INVALID.items() for value in values]
)
def test_an_invalid_field_is_named(
    bundle: Path, field: str, value: Any, nothing_used: None
) -> None:
    edit_manifest(bundle, lambda document: document.update({field: value}))
    with pytest.raises(IntegrityError, match=rf"{field} is"):
        Classifier.load(bundle)


@pytest.mark.parametrize(
    "changes",
    [
        {"scores": {}, "teacher": {}, "sources": {}, "parity": {}, "scheme": None},
        {"scores": {"metric": "own predictions", "split_size": 0, "teacher": 1, "student": -0.5}},
        {"scheme": {}, "teacher": {"seed": 3}},
    ],
)
def test_descriptions_may_lack_keys(bundle: Path, changes: dict[str, Any]) -> None:
    edit_manifest(bundle, lambda document: document.update(changes))
    assert Classifier.load(bundle).predict("the film was good").label in ("bad", "good")


@pytest.mark.parametrize("field", [field for field in INVALID if field != "scheme"])
def test_a_missing_field_is_named(bundle: Path, field: str, nothing_used: None) -> None:
    edit_manifest(bundle, lambda document: document.pop(field))
    with pytest.raises(IntegrityError, match=rf"{field} is"):
        Classifier.load(bundle)


@pytest.mark.parametrize(
    "field, value", [(field, value) for field, values in INVALID_SPEC.items() for value in values]
)
def test_an_invalid_task_is_rejected(
    bundle: Path, field: str, value: Any, nothing_used: None
) -> None:
    edit_manifest(bundle, lambda document: document["spec"].update({field: value}))
    with pytest.raises(IntegrityError, match="spec is"):
        Classifier.load(bundle)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_nan_and_infinity_are_rejected_everywhere(
    bundle: Path, number: str, nothing_used: None
) -> None:
    text = (bundle / MANIFEST).read_text()
    for part in ("scores", "parity", "teacher"):
        (bundle / MANIFEST).write_text(
            text.replace(f'"{part}": {{', f'"{part}": {{"x": {number},', 1)
        )
        with pytest.raises(IntegrityError, match=number.strip("-")):
            Classifier.load(bundle)


@pytest.mark.parametrize("opening, closing", [("[", "]"), ('{"a":', "}")])
def test_a_deeply_nested_manifest_is_rejected(
    bundle: Path, opening: str, closing: str, nothing_used: None
) -> None:
    text = (bundle / MANIFEST).read_text()
    (bundle / MANIFEST).write_text(
        text.replace(
            '"parity": {', '"parity": {"x": ' + opening * 100_000 + "1" + closing * 100_000 + ",", 1
        )
    )
    with pytest.raises(IntegrityError, match=r"kdedge\.json"):
        Classifier.load(bundle)


def test_an_unlisted_file_is_rejected(bundle: Path, nothing_used: None) -> None:
    for name in factories.BUNDLE_FILES:
        manifest = (bundle / MANIFEST).read_text()
        edit_manifest(bundle, lambda document, name=name: document["files"].pop(name))
        with pytest.raises(IntegrityError) as error:
            Classifier.load(bundle)
        assert name in str(error.value)
        (bundle / MANIFEST).write_text(manifest)


@pytest.mark.parametrize("kind", ["empty", "text", "noise", "half", "no nodes", "pickle"])
def test_a_garbage_graph_with_a_valid_hash_is_an_integrity_error(bundle: Path, kind: str) -> None:
    whole = (bundle / "onnx/model.onnx").read_bytes()
    empty = helper.make_model(
        helper.make_graph([], "none", [], []),
        ir_version=8,
        opset_imports=[helper.make_opsetid("", 17)],
    )
    content = {
        "empty": b"",
        "text": b"<html>not found</html>",
        "noise": np.random.default_rng(2).bytes(5000),
        "half": whole[: len(whole) // 2],
        "no nodes": empty.SerializeToString(),
        "pickle": b"\x80\x04cos\nsystem\n(S'true'\ntR.",
    }[kind]
    forge_file(bundle, "onnx/model.onnx", content)
    with pytest.raises(IntegrityError, match=r"cannot load the graph|does not match the manifest"):
        Classifier.load(bundle, "fp32")


def test_an_unknown_opset_is_an_integrity_error(bundle: Path) -> None:
    model = onnx.load_from_string((bundle / "onnx/model.onnx").read_bytes())
    model.opset_import[0].version = 999
    forge_file(bundle, "onnx/model.onnx", model.SerializeToString())
    with pytest.raises(IntegrityError, match="cannot load the graph"):
        Classifier.load(bundle, "fp32")


def test_inputs_that_the_graph_does_not_have_are_rejected(bundle: Path) -> None:
    edit_manifest(
        bundle,
        lambda document: document.update(inputs=["input_ids", "attention_mask", "token_type_ids"]),
    )
    with pytest.raises(IntegrityError, match="does not match the manifest"):
        Classifier.load(bundle)


def test_a_tokenizer_with_huge_ids_is_an_integrity_error(bundle: Path) -> None:
    document = json.loads((bundle / "tokenizer.json").read_text())
    document["model"]["vocab"]["film"] = (1 << 32) - 2
    forge_file(bundle, "tokenizer.json", json.dumps(document).encode())
    for precision in ("fp32", "int8"):
        with pytest.raises(IntegrityError):
            Classifier.load(bundle, precision).predict("the film was good")


def test_a_tokenizer_without_special_tokens_predicts_or_is_an_error(bundle: Path) -> None:
    document = json.loads((bundle / "tokenizer.json").read_text())
    for change in (
        {"post_processor": None},
        {"added_tokens": []},
        {"model": document["model"] | {"vocab": {}}},
    ):
        forge_file(bundle, "tokenizer.json", json.dumps(document | change).encode())
        try:
            classifier = Classifier.load(bundle, "fp32")
            labels = {classifier.predict(text).label for text in ("", "the film", "好")}
        except KdedgeError:
            continue
        assert labels <= {"bad", "good"}


def test_the_verified_bytes_are_used(bundle: Path) -> None:
    """A file that changes after verification has no effect."""
    expected = Classifier.load(bundle, "fp32").logits(["the film was good"])
    opened = Bundle.open(bundle)
    assert set(dict(opened.contents)) == set(opened.manifest.files), "every file is read"
    (bundle / "onnx/model.onnx").write_bytes(b"other")
    (bundle / "tokenizer.json").write_bytes(b"other")
    assert np.array_equal(
        Classifier.from_bundle(opened, "fp32").logits(["the film was good"]), expected
    )
