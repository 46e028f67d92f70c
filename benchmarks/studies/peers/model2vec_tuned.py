"""model2vec: static embeddings distilled from the encoder, then trained as a classifier."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from model2vec.distill import distill
from model2vec.inference import StaticModelPipeline
from model2vec.train import StaticModelForClassification
from peer_protocol import Answer, PeerTask, run


def fit(task: PeerTask, folder: Path) -> None:
    static = distill(task.settings["encoder"])
    classifier = StaticModelForClassification.from_static_model(model=static)
    texts, labels = task.split("train")
    validation_texts, validation_labels = task.split("validation")
    classifier.fit(
        texts,
        [str(label) for label in labels],
        X_val=validation_texts,
        y_val=[str(label) for label in validation_labels],
        device="cpu",
    )
    classifier.to_pipeline().save_pretrained(str(folder))


def load(folder: Path) -> Answer:
    pipeline = StaticModelPipeline.from_pretrained(str(folder))
    order = np.argsort([int(name) for name in pipeline.classes_])
    return lambda text: pipeline.predict_proba([text])[0][order]


if __name__ == "__main__":
    run(fit, load)
