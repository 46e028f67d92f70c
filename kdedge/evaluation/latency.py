"""Latency of models in torch, to compare trials; `kdedge bench` measures exported files."""

from __future__ import annotations

import time

import numpy as np
import torch

from kdedge.data.task import Split
from kdedge.evaluation.timing import TimingPlan, Work, interleave
from kdedge.nn.text_model import TextClassifier

TEXTS = 64


def latencies(split: Split, *subjects: tuple[TextClassifier, ...]) -> np.ndarray:
    """Time single texts of `split` without tokenization.

    A subject is a tuple of models that run one after another. The subjects take turns at every
    text, so that a slow phase of the machine affects all of them.

    Returns:
        Seconds per subject and text. *Shape:* (len(subjects), N)
    """
    texts = split.texts[:TEXTS]
    pairs = None if split.pairs is None else split.pairs[:TEXTS]
    works: dict[str, Work] = {}
    for number, models in enumerate(subjects):
        batches = []
        for i in range(len(texts)):
            pair = None if pairs is None else pairs[i : i + 1]
            batches.append([_batch(model, texts[i : i + 1], pair) for model in models])
        works[str(number)] = _work(models, batches)
    plan = TimingPlan(rounds=len(texts), visit=1, lead_in=False)
    timed = interleave(works, len(texts), plan)
    return np.stack([timed[name][0].values for name in works])


def share_of_time(split: Split, model: TextClassifier, *reference: TextClassifier) -> float:
    """Return the median share of the reference's time that `model` needs for the same text.

    Unlike seconds, shares can be compared between machines.
    """
    seconds, reference_seconds = latencies(split, (model,), reference)
    return float(np.median(seconds / reference_seconds))


Batch = dict[str, torch.Tensor]


def _batch(model: TextClassifier, texts: tuple[str, ...], pairs: tuple[str, ...] | None) -> Batch:
    batch = model.pad([model.encode(texts, pairs)[0]])
    return {name: values.to(model.model.device) for name, values in batch.items()}


def _work(models: tuple[TextClassifier, ...], batches: list[list[Batch]]) -> Work:
    for classifier in models:
        classifier.model.eval()

    @torch.inference_mode()
    def work(item: int) -> tuple[float]:
        start = time.perf_counter()
        for classifier, batch in zip(models, batches[item], strict=True):
            classifier.model(**batch)["logits"].cpu()  # the copy waits for a GPU to finish
        return (time.perf_counter() - start,)

    return work
