"""What a student must beat to be worth its trouble: words counted, and no model at all."""

from __future__ import annotations

import pickle
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from kdedge.benchmarks.subjects import Runner, Subject

from kdedge.data.task import Task
from kdedge.runtime.spec import TaskSpec

SEPARATOR = " ; "
"""Stands between the two texts of a pair."""

ABSENT = -1e9
"""Logit of a class that the training texts do not show."""


def constant(task: Task) -> Subject:
    """The commonest answer of the training labels, whatever the text says; their mean for regression."""
    labels, spec = task.train.labels, task.spec
    if spec.kind == "regression":
        name, row = "mean of train", np.array([labels.mean()])
    elif spec.kind == "multilabel":
        name, row = "majority labels", np.where(labels.mean(0) > 0.5, 1.0, -1.0)
    else:
        name, row = (
            "majority class",
            np.eye(spec.outputs)[np.bincount(labels, minlength=spec.outputs).argmax()],
        )
    return Subject(
        name,
        "baseline",
        "peer",
        None,
        None,
        logits=np.tile(row, (len(task.test), 1)).astype(np.float32),
    )


def has_words(task: Task) -> bool:
    """Whether the training texts hold what a bag of words counts: runs of two letters or more."""
    return any(
        re.search(r"\b\w\w+\b", text) for text in _joined(task.train.texts, task.train.pairs)
    )


def tfidf(task: Task) -> Subject:
    """TF-IDF over 1- and 2-grams with logistic regression (ridge for regression), fitted on the training split."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    spec = task.spec
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, max_features=50_000)
    model = _linear_model(spec)
    model.fit(
        words.fit_transform(_joined(task.train.texts, task.train.pairs)),
        _targets(spec, task.train.labels),
    )
    runner = Runner(
        encode=lambda texts, pairs: words.transform(_joined(texts, pairs)),
        run=lambda features: _logits(spec, model, features),
    )
    name = "tf-idf + ridge" if spec.kind == "regression" else "tf-idf + logistic"
    logits = runner.run(runner.encode(task.test.texts, task.test.pairs))
    return Subject(
        name,
        "baseline",
        "peer",
        None,
        "scikit-learn",
        logits=logits,
        runner=runner,
        bytes=len(pickle.dumps((words, model))),
    )


def _linear_model(spec: TaskSpec) -> Any:
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.multiclass import OneVsRestClassifier

    if spec.kind == "regression":
        return Ridge(alpha=1.0)
    logistic = LogisticRegression(C=10.0, max_iter=200, tol=1e-3)
    return OneVsRestClassifier(logistic) if spec.kind == "multilabel" else logistic


def _joined(texts: Sequence[str], pairs: Sequence[str] | None) -> Sequence[str]:
    return (
        texts
        if pairs is None
        else [f"{a}{SEPARATOR}{b}" for a, b in zip(texts, pairs, strict=True)]
    )


def _targets(spec: TaskSpec, labels: np.ndarray) -> np.ndarray:
    return labels.astype(np.int64) if spec.kind == "multilabel" else labels


def _logits(spec: TaskSpec, model: Any, features: Any) -> np.ndarray:
    """(B, C) float32 in the order of the task's labels."""
    if spec.kind == "regression":
        return np.asarray(model.predict(features), dtype=np.float32).reshape(-1, 1)
    scores = np.asarray(model.decision_function(features), dtype=np.float32)
    if spec.kind == "multilabel":
        return scores.reshape(features.shape[0], -1)
    if scores.ndim == 1:  # two classes: one number, above 0 for the second
        scores = np.stack([-scores, scores], axis=1)
    full = np.full((len(scores), spec.outputs), ABSENT, dtype=np.float32)
    full[:, model.classes_] = scores
    return full
