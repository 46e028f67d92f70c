"""A classifier that trains on labels, and its logits on the validation split."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from kdedge.nn.attention_mask import with_additive_mask
from kdedge.nn.batching import Encoded, PaddingCollator
from kdedge.nn.device import native_precision
from kdedge.nn.inference import predict_logits
from kdedge.nn.micro_batches import WHOLE_BATCH, MicroBatch


class LabelLossModule(nn.Module):
    """A transformers classifier with its own loss on the labels, in the form of `train`."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, labels: torch.Tensor, micro_batch: MicroBatch = WHOLE_BATCH, **batch: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        outputs = self.model(labels=labels, **with_additive_mask(self.model, batch))
        return {"loss": micro_batch.texts * outputs.loss, "logits": outputs.logits}


def validation_predictor(
    data: Encoded, pad: PaddingCollator, precision: str
) -> Callable[[nn.Module], np.ndarray]:
    """Return a function from a training module to its `.model`'s logits (N, C) on `data`.

    A model on a GPU computes them in the number format of its training; these logits only choose a
    checkpoint. What is stored and reported is computed in fp32.

    Args:
        precision: That of the training, as a recipe names it.
    """

    def predict(module: nn.Module) -> np.ndarray:
        model: Any = module.model
        device = model.device
        chosen = None if device.type == "cpu" else native_precision(precision, device)
        return predict_logits(model, data, pad, precision=chosen)

    return predict
