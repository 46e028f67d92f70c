"""How long a student takes for one text, well enough to compare students tried side by side."""

from __future__ import annotations

import time

import numpy as np
import torch

from kdedge.data.task import Split
from kdedge.textmodel import TextModel

TEXTS = 64


def latency(model: TextModel, split: Split) -> float:
    """Median seconds of the model in torch for one text of `split`, tokenization left out; `kdedge bench` measures the real file."""
    data = model.encode(split.texts[:TEXTS], None if split.pairs is None else split.pairs[:TEXTS])
    device = next(model.model.parameters()).device
    seconds = []
    model.model.eval()
    with torch.inference_mode():
        for i in [0, *range(len(data))]:
            batch = {name: values.to(device) for name, values in model.pad([data[i]]).items()}
            start = time.perf_counter()
            model.model(**batch)["logits"].cpu()  # the copy waits for a GPU to finish
            seconds.append(time.perf_counter() - start)
    return float(np.median(seconds[1:]))
