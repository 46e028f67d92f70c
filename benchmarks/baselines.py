"""Baselines without a neural network: a constant prediction, and TF-IDF with a linear model."""

from __future__ import annotations

import pickle
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from kdedge.benchmarks.subjects import Runner, Subject

from kdedge.data.task import Split, Task
from kdedge.runtime.spec import TaskSpec

SEPARATOR = " ; "
"""Joins the two texts of a pair."""

ABSENT = -1e9
"""Logit of a class that the training texts do not contain."""

CERTAIN = 30.0
"""Logit of a label whose probability is above every threshold."""


def constant(task: Task) -> Subject:
    """Predict the most frequent training label, or the mean of a regression."""
    spec = task.spec
    labels = task.train.labels
    if spec.kind == "regression":
        name = "mean of train"
        row = np.array([labels.mean()])
    elif spec.kind == "multilabel":
        name = "majority labels"
        row = np.where(labels.mean(0) > 0.5, CERTAIN, -CERTAIN)
    else:
        name = "majority class"
        row = np.eye(spec.outputs)[np.bincount(labels, minlength=spec.outputs).argmax()]
    logits = np.tile(row, (len(task.test), 1)).astype(np.float32)
    return Subject(name, "baseline", "simple", logits=logits)


def has_words(task: Task) -> bool:
    """Return whether a training text has a word of two characters or more."""
    return any(re.search(r"\b\w\w+\b", text) for text in _joined_texts(task.train))


def tfidf(task: Task) -> Subject:
    """Fit TF-IDF over 1- and 2-grams with logistic regression (ridge for a regression)."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    spec = task.spec
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, max_features=50_000)
    features = vectorizer.fit_transform(_joined_texts(task.train))
    labels = task.train.labels
    if spec.kind == "multilabel":
        labels = labels.astype(np.int64)
    model = _linear_model(spec)
    model.fit(features, labels)
    runner = Runner(
        encode=lambda texts, pairs: vectorizer.transform(_join(texts, pairs)),
        run=lambda features: _logits(spec, model, features),
    )
    return Subject(
        "tf-idf + ridge" if spec.kind == "regression" else "tf-idf + logistic",
        "baseline",
        "simple",
        provider="scikit-learn",
        logits=runner.run(runner.encode(task.test.texts, task.test.pairs)),
        runner=runner,
        bytes=len(pickle.dumps((vectorizer, model))),
    )


def _linear_model(spec: TaskSpec) -> Any:
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.multiclass import OneVsRestClassifier

    if spec.kind == "regression":
        return Ridge(alpha=1.0)
    logistic = LogisticRegression(C=10.0, max_iter=200, tol=1e-3)
    return OneVsRestClassifier(logistic) if spec.kind == "multilabel" else logistic


def _joined_texts(split: Split) -> Sequence[str]:
    return _join(split.texts, split.pairs)


def _join(texts: Sequence[str], pairs: Sequence[str] | None) -> Sequence[str]:
    if pairs is None:
        return texts
    return [f"{first}{SEPARATOR}{second}" for first, second in zip(texts, pairs, strict=True)]


def _logits(spec: TaskSpec, model: Any, features: Any) -> np.ndarray:
    """Compute logits (B, C) float32 in the order of the task's labels."""
    if spec.kind == "regression":
        return np.asarray(model.predict(features), dtype=np.float32).reshape(-1, 1)
    scores = np.asarray(model.decision_function(features), dtype=np.float32)
    if spec.kind == "multilabel":
        return scores.reshape(features.shape[0], -1)
    if scores.ndim == 1:
        # scikit-learn gives two classes one score, which is positive for the second class.
        scores = np.stack([-scores, scores], axis=1)
    logits = np.full((len(scores), spec.outputs), ABSENT, dtype=np.float32)
    logits[:, model.classes_] = scores
    return logits
