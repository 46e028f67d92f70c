"""How long models take for one text in torch, well enough to compare what was tried; `kdedge bench` measures real files."""

from __future__ import annotations

import time

import numpy as np
import torch

from kdedge.data.task import Split
from kdedge.nn.text_model import TextClassifier

TEXTS = 64


def latencies(split: Split, *ways: tuple[TextClassifier, ...]) -> np.ndarray:
    """Seconds (W, N) of each way, its models one after the other, for single texts of `split`; tokenization is left out.

    The ways take turns at every text: what slows the machine for a while slows all of them.
    """
    texts, pairs = split.texts[:TEXTS], None if split.pairs is None else split.pairs[:TEXTS]
    read = [[(model, model.encode(texts, pairs)) for model in models] for models in ways]
    seconds = np.empty((len(ways), len(texts)))
    for models in read:
        _timed([(model, _batch(model, rows[0])) for model, rows in models])
    for i in range(len(texts)):
        for way, models in enumerate(read):
            seconds[way, i] = _timed([(model, _batch(model, rows[i])) for model, rows in models])
    return seconds


def share_of_time(split: Split, model: TextClassifier, *reference: TextClassifier) -> float:
    """Median share that `model` takes of the time of `reference` for the same text, which says more than seconds where machines differ."""
    mine, theirs = latencies(split, (model,), reference)
    return float(np.median(mine / theirs))


def _batch(model: TextClassifier, row: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: values.to(model.model.device) for name, values in model.pad([row]).items()}


def _timed(asked: list[tuple[TextClassifier, dict[str, torch.Tensor]]]) -> float:
    with torch.inference_mode():
        for model, _ in asked:
            model.model.eval()
        start = time.perf_counter()
        for model, batch in asked:
            model.model(**batch)["logits"].cpu()  # the copy waits for a GPU to finish
        return time.perf_counter() - start
