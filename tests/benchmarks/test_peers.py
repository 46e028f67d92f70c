"""The protocol of the peers' study, with the peers that need no environment of their own."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import _peer_runs
import _peer_task
import factories
import numpy as np
import peers
import pytest
from _peer_runs import BUNDLE, PEERS, PROGRAMS, MeasuredModel, Peer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from kdedge.errors import CheckFailed
from kdedge.runtime import Classifier

TFIDF = Peer("tfidf_logistic", "TF-IDF", "")
TASK = factories.single_task()


def settings(teacher: str = "") -> _peer_task.Settings:
    return _peer_task.Settings(TASK.spec.labels, teacher, "", 32, 0, 4, 8, "", 1, 16)


def write_task(folder: Path, teacher: str = "") -> None:
    rows = _peer_task.labelled_rows(TASK.train)
    _peer_task.write_task(folder, rows, TASK, settings(teacher))


def fitted(peer: Peer, folder: Path, teacher: str = "") -> MeasuredModel:
    write_task(folder / "labelled", teacher)
    peers.fit_all([peer], folder)
    return peers.subject_of(peer, folder / "models")


@pytest.mark.slow
def test_a_peer_gives_the_scores_of_the_same_model_made_here(tmp_path: Path) -> None:
    subject = fitted(TFIDF, tmp_path)
    assert subject.problem == "" and subject.fit_seconds is not None
    _peer_runs.measure([subject], TASK.test.texts, tmp_path)
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, max_features=50_000)
    features = vectorizer.fit_transform(TASK.train.texts)
    candidates = []
    for penalty in (3.0, 10.0, 30.0):
        model = LogisticRegression(C=penalty, max_iter=200, tol=1e-3)
        model.fit(features, TASK.train.labels)
        right = model.score(vectorizer.transform(TASK.validation.texts), TASK.validation.labels)
        candidates.append((right, -penalty, model))
    best = max(candidates, key=lambda candidate: candidate[:2])[2]
    expected = best.predict_proba(vectorizer.transform(TASK.test.texts))
    np.testing.assert_allclose(subject.scores, expected, atol=1e-9)
    assert len(subject.microseconds) == len(TASK.test.texts)
    assert min(subject.microseconds) > 0


def test_a_bundle_answers_by_the_same_protocol(tmp_path: Path) -> None:
    bundle = factories.tiny_bundle()
    subject = MeasuredModel("bundle", BUNDLE, bundle)
    _peer_runs.measure([subject], TASK.test.texts, tmp_path)
    classifier = Classifier.load(bundle, "int8", threads=1)
    expected = [list(classifier.predict(text).scores.values()) for text in TASK.test.texts]
    np.testing.assert_allclose(subject.scores, expected, atol=1e-6)
    assert subject.package_bytes > 10_000_000, "numpy and onnxruntime are loaded"


@pytest.mark.slow
def test_the_teacher_answers_by_the_same_protocol(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    factories.write_data_and_teacher(tmp_path / "made")
    teacher = tmp_path / "made" / "model"
    subject = fitted(Peer("torch_teacher", "teacher", ""), tmp_path, str(teacher))
    assert subject.problem == ""
    _peer_runs.measure([subject], TASK.test.texts, tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(teacher).eval()
    tokenizer = AutoTokenizer.from_pretrained(teacher)
    for text, scores in list(zip(TASK.test.texts, subject.scores, strict=True))[:10]:
        with torch.inference_mode():
            expected = model(**tokenizer(text, return_tensors="pt")).logits[0]
        np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_peers_never_see_a_test_text(tmp_path: Path) -> None:
    write_task(tmp_path)
    rows = []
    for file in tmp_path.glob("*.jsonl"):
        rows += [json.loads(line) for line in file.read_text().splitlines()]
    own = [*TASK.train.texts, *TASK.validation.texts]
    assert sorted(row["text"] for row in rows) == sorted(own)
    labels = [*TASK.train.labels.tolist(), *TASK.validation.labels.tolist()]
    assert sorted(row["label"] for row in rows) == sorted(labels)


def test_a_failure_is_kept_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_peer_runs, "PROGRAMS", tmp_path)
    (tmp_path / "breaks.py").write_text("raise SystemExit('the reason is here')")
    subject = fitted(Peer("breaks", "a peer", ""), tmp_path)
    assert "the reason is here" in subject.problem


def test_a_peer_without_environment_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_peer_runs, "ENVIRONMENTS", tmp_path)
    with pytest.raises(CheckFailed) as missing:
        PEERS[0].command()
    assert "make peers" in str(missing.value.detail)
    (tmp_path / PEERS[0].environment).mkdir()
    (tmp_path / PEERS[0].environment / "why.txt").write_text("no wheel for this Python\n")
    with pytest.raises(CheckFailed) as failed:
        PEERS[0].command()
    assert failed.value.detail == "no wheel for this Python"


def test_every_peer_has_a_program_and_a_lock() -> None:
    locks = PROGRAMS.parents[2] / "configs" / "locks" / "peers"
    for peer in PEERS:
        assert (PROGRAMS / f"{peer.program}.py").is_file()
        assert (locks / f"{peer.environment}.txt").is_file()
    assert {path.stem for path in locks.glob("*.txt")} == {peer.environment for peer in PEERS}


@pytest.mark.parametrize("program", sorted(PROGRAMS.glob("*.py")), ids=lambda path: path.stem)
def test_a_peer_does_not_import_kdedge(program: Path) -> None:
    modules = set()
    for node in ast.walk(ast.parse(program.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(str(node.module).partition(".")[0])
    assert ("kdedge" in modules) == (program.stem == "kdedge_bundle")
