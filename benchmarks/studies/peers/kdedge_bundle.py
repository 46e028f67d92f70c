"""A bundle of kdedge, measured by the same protocol as the peers. It is trained elsewhere."""

from __future__ import annotations

from pathlib import Path

from peer_protocol import Answer, PeerTask, run

from kdedge.runtime import Classifier


def fit(task: PeerTask, folder: Path) -> None:
    raise SystemExit("kdedge distill and kdedge export make bundles")


def load(folder: Path) -> Answer:
    classifier = Classifier.load(folder, "int8", threads=1)
    return lambda text: list(classifier.predict(text).scores.values())


if __name__ == "__main__":
    run(fit, load)
