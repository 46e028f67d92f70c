"""A small BERT and its calibrated fake-quantized form, for tests of what becomes of both."""

from __future__ import annotations

import numpy as np
import tiny
import torch
from kdedge.export.calibrate import calibrate, unpadded_batches
from kdedge.export.fake_model import fake_quantized
from kdedge.export.scheme import QuantScheme
from torch import nn

from kdedge.nn.batching import PaddingCollator
from kdedge.nn.tokenization import encode

Batches = list[dict[str, torch.Tensor]]


def small_bert(scheme: QuantScheme) -> tuple[nn.Module, nn.Module, Batches]:
    """The float model, the calibrated one, and 64 texts of equal length in batches."""
    torch.manual_seed(3)
    tokenizer = tiny.tokenizer()
    model = tiny.bert(
        layers=2, hidden=32, heads=4, vocabulary=len(tokenizer), initializer_range=0.2
    ).eval()
    batches = unpadded_batches(
        PaddingCollator(0), encode(tokenizer, tiny.sentences(64, 5)[0], None, 48).tokens
    )
    quantized = fake_quantized(model, scheme).eval()
    calibrate(quantized, model, batches)
    return model, quantized, batches


def texts_of(batches: Batches) -> list[dict[str, np.ndarray]]:
    """Single texts (1, T)."""
    return [
        {name: values[i : i + 1].numpy() for name, values in batch.items()}
        for batch in batches
        for i in range(len(batch["input_ids"]))
    ]
