"""Latency of models in torch, to compare trials; `kdedge bench` measures exported files."""

from __future__ import annotations

import time

import numpy as np
import torch

from kdedge.data.task import Split
from kdedge.evaluation.timing import TimingPlan, Work, interleave
from kdedge.nn.text_model import TextClassifier

TEXTS = 64

Batch = dict[str, torch.Tensor]


def latencies(split: Split, *models: TextClassifier) -> np.ndarray:
    """Time single texts of `split` without tokenization.

    All models run on a text before the next text, so a slow phase of the machine affects them all.

    Returns:
        Seconds per model and text. *Shape:* (len(models), N)
    """
    chosen = split.take(np.arange(min(TEXTS, len(split))))
    works: dict[str, Work] = {}
    for number, model in enumerate(models):
        encoded = model.encode(chosen.texts, chosen.pairs)
        batches = []
        for row in range(len(chosen)):
            batch = model.pad(encoded.take([row]))
            device = model.model.device
            batches.append({name: values.to(device) for name, values in batch.items()})
        works[str(number)] = _work(model, batches)
    plan = TimingPlan(rounds=len(chosen), visit=1, lead_in=False)
    timed = interleave(works, len(chosen), plan)
    return np.stack([timed[name][0].values for name in works])


def share_of_time(split: Split, model: TextClassifier, reference: TextClassifier) -> float:
    """Return the median over texts of the model's time divided by the reference's time.

    Unlike seconds, ratios can be compared between machines.
    """
    seconds, reference_seconds = latencies(split, model, reference)
    return float(np.median(seconds / reference_seconds))


def _work(classifier: TextClassifier, batches: list[Batch]) -> Work:
    classifier.model.eval()

    @torch.inference_mode()
    def work(item: int) -> tuple[float]:
        start = time.perf_counter()
        classifier.model(**batches[item])["logits"].cpu()  # the copy waits for a GPU to finish
        return (time.perf_counter() - start,)

    return work
