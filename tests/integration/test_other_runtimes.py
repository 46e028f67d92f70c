"""Other libraries load a bundle unchanged, and give the answers of the Python runtime."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import factories
import numpy as np
import pytest
from web_pages import installed_modules, require_node, run_node

from kdedge.runtime import Classifier

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow

TEXTS = ("the film was lovely 12", "the plot and cast was awful", "好好 a film", "İstanbul [MASK]")
PAIRS = (("the film was good", "the plot was bad"), ("a", "the cast was dull and awful"))
LONG = "the film " * 100
TOLERANCE = 1e-4
ROWS = {"single": [(text,) for text in TEXTS], "pair": list(PAIRS)}
BERTS = pytest.mark.parametrize("task", ROWS)

REFUSED_BILSTM = "kdedge-bilstm"
"""Both libraries name the kind of model that they do not know."""


def assert_same_logits(answers: dict[str, Any], bundle: Path, rows: list[tuple[str, ...]]) -> None:
    """Compare tokens and logits with the Python runtime."""
    classifier = Classifier.load(bundle, "int8", threads=1)
    assert len(answers["rows"]) == len(rows)
    for row, got in zip(rows, answers["rows"], strict=True):
        encoded = classifier.encode(row[:1], None if len(row) == 1 else row[1:])
        assert got["ids"] == encoded["input_ids"][0].tolist()
        difference = np.abs(classifier.run(encoded)[0] - np.array(got["logits"])).max()
        assert difference < TOLERANCE


def assert_same_probabilities(
    answers: dict[str, Any], bundle: Path, rows: list[tuple[str, ...]]
) -> None:
    """Compare the answers of a pipeline, which reads single texts, with the Python runtime."""
    classifier = Classifier.load(bundle, "int8", threads=1)
    assert len(answers["answers"]) == len(rows)
    for row, scores in zip(rows, answers["answers"], strict=True):
        expected = classifier.predict(*row)
        assert scores[0]["label"] == expected.label
        found = {item["label"]: item["score"] for item in scores}
        assert found == pytest.approx(expected.scores, abs=TOLERANCE)


def classify_in_node(bundle: Path, rows: list[tuple[str, ...]], model: str = "auto") -> Any:
    require_node()
    given = {"bundle": str(bundle), "dtype": "q8", "rows": rows, "model": model}
    return run_node("pipeline.mjs", installed_modules(), given=given)


@BERTS
def test_transformers_js_gives_the_same_answers(task: str) -> None:
    bundle = factories.tiny_bundle("bert", task)
    answers = classify_in_node(bundle, ROWS[task])
    assert_same_logits(answers, bundle, ROWS[task])
    if task == "single":
        assert_same_probabilities(answers, bundle, ROWS[task])


def test_transformers_js_cuts_the_end_mark_off_a_long_text() -> None:
    """If this changes, remove the limit from docs/how-to/embed-web.md."""
    bundle = factories.tiny_bundle("bert")
    (row,) = classify_in_node(bundle, [(LONG,)])["rows"]
    expected = Classifier.load(bundle, threads=1).encode([LONG])["input_ids"][0].tolist()
    assert len(row["ids"]) == len(expected) == factories.BUNDLE_MAX_LENGTH
    assert row["ids"][:-1] == expected[:-1]
    assert row["ids"][-1] != expected[-1]


def test_transformers_js_runs_a_bilstm_as_a_plain_graph() -> None:
    """Its pipeline knows no BiLSTM; the class for BERT runs any graph with BERT's inputs."""
    bundle = factories.tiny_bundle("bilstm")
    with pytest.raises(AssertionError, match=REFUSED_BILSTM):
        classify_in_node(bundle, ROWS["single"])
    answers = classify_in_node(bundle, ROWS["single"], "BertForSequenceClassification")
    assert_same_logits(answers, bundle, ROWS["single"])


# optimum


@pytest.fixture(scope="session")
def optimum(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install optimum-onnx into an environment of its own; return its Python."""
    environment = tmp_path_factory.mktemp("optimum") / "venv"
    python = environment / "bin" / "python"
    local = Path(sys.executable).with_name("uv")
    uv = str(local) if local.exists() else "uv"
    lock = ROOT / "configs" / "locks" / "optimum.txt"
    install = [uv, "pip", "install", "--quiet", "--python", python, "--require-hashes", "-r", lock]
    for command in ([uv, "venv", "--quiet", "--python", sys.executable, environment], install):
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stderr
    return python


def classify_with_optimum(
    python: Path, bundle: Path, rows: list[tuple[str, ...]]
) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    given = {"bundle": str(bundle), "file": "model_quantized.onnx", "rows": rows}
    return subprocess.run(
        [str(python), str(ROOT / "tests" / "optimum_program.py")],
        input=json.dumps(given),
        env=environment | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_optimum_gives_the_same_answers(optimum: Path) -> None:
    for task, short in ROWS.items():
        bundle = factories.tiny_bundle("bert", task)
        rows = [*short, (LONG,)] if task == "single" else [*short, (LONG, LONG)]
        done = classify_with_optimum(optimum, bundle, rows)
        assert done.returncode == 0, done.stderr[-2000:]
        answers = json.loads(done.stdout.splitlines()[-1])
        assert_same_logits(answers, bundle, rows)
        if task == "single":
            assert_same_probabilities(answers, bundle, rows)
    done = classify_with_optimum(optimum, factories.tiny_bundle("bilstm"), ROWS["single"])
    assert REFUSED_BILSTM in done.stderr
