"""The teacher as it is: fp32 in torch."""

from __future__ import annotations

from pathlib import Path

from bert_files import copy_model
from peer_protocol import Answer, PeerTask, run
from torch_model import load_model, scorer


def fit(task: PeerTask, folder: Path) -> None:
    copy_model(task, folder)


def load(folder: Path) -> Answer:
    return scorer(load_model(folder), folder)


if __name__ == "__main__":
    run(fit, load)
