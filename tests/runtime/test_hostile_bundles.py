"""Bundles made to deceive: swapped files, folders for files, every field of the manifest wrong, garbage with hashes that fit."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bundles
import numpy as np
import onnx
import pytest
from onnx import helper

from kdedge.errors import IntegrityError, KdedgeError, UsageError
from kdedge.runtime import Bundle, Classifier, Manifest, classifier, text_encoder
from kdedge.runtime.bundle import MANIFEST, write_manifest


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return bundles.copy_of(bundles.tiny_bundle("bilstm", "single"), tmp_path)


@pytest.fixture
def nothing_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session or a tokenizer that is made fails the test."""

    def used(*_: Any, **__: Any) -> None:
        raise AssertionError("something of a forged bundle was used")

    monkeypatch.setattr(classifier.onnxruntime, "InferenceSession", used)
    monkeypatch.setattr(text_encoder, "Tokenizer", used)


@pytest.fixture(autouse=True)
def soon() -> Iterator[None]:
    """No forgery keeps the reader busy: processor seconds, since other programs share the machine."""
    bundles.tiny_bundle("bilstm", "single")  # made before the clock starts
    begun = time.process_time()
    yield
    assert time.process_time() - begun < 2


def changed(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    document = json.loads((folder / MANIFEST).read_text())
    change(document)
    (folder / MANIFEST).write_text(json.dumps(document))


def forged(folder: Path, name: str, content: bytes) -> None:
    """Another file, and a manifest whose hash fits it."""
    (folder / name).write_bytes(content)
    write_manifest(folder, Manifest.from_json(json.loads((folder / MANIFEST).read_text())))


@pytest.mark.parametrize("one, other", itertools.combinations(bundles.HELD, 2))
def test_two_files_in_each_others_place_are_refused(
    bundle: Path, one: str, other: str, nothing_used: None
) -> None:
    first, second = (bundle / one).read_bytes(), (bundle / other).read_bytes()
    (bundle / one).write_bytes(second)
    (bundle / other).write_bytes(first)
    with pytest.raises(IntegrityError) as rejected:
        Classifier.load(bundle)
    assert one in rejected.value.what or other in rejected.value.what


@pytest.mark.parametrize("name", bundles.HELD)
def test_a_folder_in_the_place_of_a_file_is_refused(
    bundle: Path, name: str, nothing_used: None
) -> None:
    (bundle / name).unlink()
    (bundle / name).mkdir()
    with pytest.raises(IntegrityError) as rejected:
        Classifier.load(bundle)
    assert name in rejected.value.what


def test_a_folder_in_the_place_of_the_manifest_is_refused(bundle: Path, nothing_used: None) -> None:
    (bundle / MANIFEST).unlink()
    (bundle / MANIFEST).mkdir()
    with pytest.raises((IntegrityError, UsageError), match=r"kdedge\.json"):
        Classifier.load(bundle)


@pytest.mark.skipif(
    os.name != "posix" or os.geteuid() == 0, reason="the rights of files do not bind this user"
)
def test_a_file_that_may_not_be_read_is_named(bundle: Path, nothing_used: None) -> None:
    (bundle / "golden.json").chmod(0)
    with pytest.raises(IntegrityError, match=r"golden\.json"):
        Classifier.load(bundle)


WRONG: dict[str, list[Any]] = {
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
        {"fp16": "onnx/model.onnx"},
        {"fp32": "onnx/model_quantized.onnx"},
        {"fp32": ["onnx/model.onnx"]},
        {"fp32": {}},
    ],
    "scheme": [[], "int8", 7],
    "parity": [None, [], 1],
    "scores": [None, [], "0.9"],
    "teacher": [None, [], "big"],
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
"""Field of kdedge.json -> values that may not stand there."""

WRONG_SPEC: dict[str, list[Any]] = {
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
    "field, value", [(field, value) for field, values in WRONG.items() for value in values]
)
def test_a_field_that_is_not_what_it_must_be_is_named(
    bundle: Path, field: str, value: Any, nothing_used: None
) -> None:
    changed(bundle, lambda document: document.update({field: value}))
    with pytest.raises(IntegrityError) as rejected:
        Classifier.load(bundle)
    assert rejected.value.found.startswith(f"{field} is")


@pytest.mark.parametrize("field", [field for field in WRONG if field not in ("scheme",)])
def test_a_field_that_is_missing_is_named(bundle: Path, field: str, nothing_used: None) -> None:
    changed(bundle, lambda document: document.pop(field))
    with pytest.raises(IntegrityError) as rejected:
        Classifier.load(bundle)
    assert rejected.value.found.startswith(f"{field} is ")


@pytest.mark.parametrize(
    "field, value", [(field, value) for field, values in WRONG_SPEC.items() for value in values]
)
def test_a_task_that_is_none_is_refused(
    bundle: Path, field: str, value: Any, nothing_used: None
) -> None:
    changed(bundle, lambda document: document["spec"].update({field: value}))
    with pytest.raises(IntegrityError, match="spec is"):
        Classifier.load(bundle)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_json_does_not_have_are_refused_wherever_they_stand(
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
def test_a_manifest_nested_without_end_is_refused(
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


def test_a_file_that_the_manifest_forgets_is_refused(bundle: Path, nothing_used: None) -> None:
    for name in bundles.HELD:
        kept = (bundle / MANIFEST).read_text()
        changed(bundle, lambda document, name=name: document["files"].pop(name))
        with pytest.raises(IntegrityError) as rejected:
            Classifier.load(bundle)
        assert name in str(rejected.value)
        (bundle / MANIFEST).write_text(kept)


@pytest.mark.parametrize("kind", ["empty", "text", "noise", "half", "no nodes", "pickle"])
def test_a_graph_that_is_garbage_with_a_hash_that_fits_ends_in_a_letter(
    bundle: Path, kind: str
) -> None:
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
    forged(bundle, "onnx/model.onnx", content)
    with pytest.raises(
        IntegrityError, match=r"cannot load the graph|does not match the manifest"
    ):
        Classifier.load(bundle, "fp32")


def test_an_opset_from_the_future_ends_in_a_letter(bundle: Path) -> None:
    model = onnx.load_from_string((bundle / "onnx/model.onnx").read_bytes())
    model.opset_import[0].version = 999
    forged(bundle, "onnx/model.onnx", model.SerializeToString())
    with pytest.raises(IntegrityError, match="cannot load the graph"):
        Classifier.load(bundle, "fp32")


def test_inputs_that_the_graph_does_not_have_are_refused(bundle: Path) -> None:
    changed(
        bundle,
        lambda document: document.update(inputs=["input_ids", "attention_mask", "token_type_ids"]),
    )
    with pytest.raises(IntegrityError, match="does not match the manifest"):
        Classifier.load(bundle)


def test_a_tokenizer_with_huge_ids_ends_in_a_letter(bundle: Path) -> None:
    document = json.loads((bundle / "tokenizer.json").read_text())
    document["model"]["vocab"]["film"] = (1 << 32) - 2
    forged(bundle, "tokenizer.json", json.dumps(document).encode())
    for precision in ("fp32", "int8"):
        with pytest.raises(IntegrityError):
            Classifier.load(bundle, precision).predict("the film was good")


def test_a_tokenizer_without_its_special_tokens_ends_in_a_letter_or_an_answer(bundle: Path) -> None:
    document = json.loads((bundle / "tokenizer.json").read_text())
    for change in (
        {"post_processor": None},
        {"added_tokens": []},
        {"model": document["model"] | {"vocab": {}}},
    ):
        forged(bundle, "tokenizer.json", json.dumps(document | change).encode())
        try:
            answers = [
                Classifier.load(bundle, "fp32").predict(text).label
                for text in ("", "the film", "好")
            ]
        except KdedgeError:
            continue
        assert set(answers) <= {"bad", "good"}


def test_what_is_used_is_what_was_checked(bundle: Path) -> None:
    """A file that is changed after it was checked and before the session is made changes nothing."""
    expected = Classifier.load(bundle, "fp32").logits(["the film was good"])
    opened = Bundle.open(bundle)
    (bundle / "onnx/model.onnx").write_bytes(b"other")
    (bundle / "tokenizer.json").write_bytes(b"other")
    assert np.array_equal(
        Classifier.from_bundle(opened, "fp32").logits(["the film was good"]), expected
    )
