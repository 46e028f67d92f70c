"""TF-IDF over one and two words with logistic regression; the penalty is chosen on validation."""

from __future__ import annotations

import pickle
from pathlib import Path

from peer_protocol import Answer, PeerTask, accuracy, run
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

PENALTIES = (3.0, 10.0, 30.0)
"""Values of scikit-learn's `C`, the inverse strength of the penalty."""


def fit(task: PeerTask, folder: Path) -> None:
    texts, labels = task.split("train")
    validation = task.split("validation")
    best = -1.0
    for penalty in PENALTIES:
        vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, max_features=50_000)
        model = make_pipeline(vectorizer, LogisticRegression(C=penalty, max_iter=200, tol=1e-3))
        model.fit(texts, labels)
        score = accuracy(scorer(model), *validation)
        if score > best:
            best = score
            (folder / "model.pickle").write_bytes(pickle.dumps(model))


def load(folder: Path) -> Answer:
    return scorer(pickle.loads((folder / "model.pickle").read_bytes()))


def scorer(model: Pipeline) -> Answer:
    """Return the scores of a model whose classes are all labels, in order."""
    return lambda text: model.predict_proba([text])[0]


if __name__ == "__main__":
    run(fit, load)
