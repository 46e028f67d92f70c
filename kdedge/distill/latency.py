"""How long a student takes for one text, well enough to compare students tried side by side."""

from __future__ import annotations

import time

import numpy as np
import torch

from kdedge.data.task import Split
from kdedge.textmodel import TextModel

TEXTS = 64


def latency(split: Split, *models: TextModel) -> float:
    """Median seconds of the models in torch, one after the other, for one text of `split`; tokenization is left out.

    `kdedge bench` measures the real file.
    """
    texts, pairs = split.texts[:TEXTS], None if split.pairs is None else split.pairs[:TEXTS]
    data = [model.encode(texts, pairs) for model in models]
    seconds = []
    for i in [0, *range(len(texts))]:
        batches = [{name: v.to(m.model.device) for name, v in m.pad([rows[i]]).items()} for m, rows in zip(models, data, strict=True)]
        seconds.append(_timed(models, batches))
    return float(np.median(seconds[1:]))


def _timed(models: tuple[TextModel, ...], batches: list[dict[str, torch.Tensor]]) -> float:
    with torch.inference_mode():
        for model in models:
            model.model.eval()
        start = time.perf_counter()
        for model, batch in zip(models, batches, strict=True):
            model.model(**batch)["logits"].cpu()  # the copy waits for a GPU to finish
        return time.perf_counter() - start
