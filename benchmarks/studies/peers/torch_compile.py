"""The teacher in fp32, compiled by torch.compile for texts of any length.

The code that it compiles counts as a part of the model: a prediction needs it, and it is not
compiled again at the next start.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
import torch._inductor.config
from bert_files import copy_model
from peer_protocol import Answer, PeerTask, run
from torch_model import load_model, scorer

FIRST_TEXTS = ("yes", "what is the balance of my account", "a longer text " * 8)
"""The first calls compile."""


def fit(task: PeerTask, folder: Path) -> None:
    copy_model(task, folder)
    load(folder)


def load(folder: Path) -> Answer:
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str((folder / "compiled").resolve())
    torch._inductor.config.freezing = True
    answer = scorer(torch.compile(load_model(folder), dynamic=True), folder)
    for text in FIRST_TEXTS:
        answer(text)
    return answer


if __name__ == "__main__":
    run(fit, load)
