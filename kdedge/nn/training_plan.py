"""What a training needs besides the model, and the arguments of transformers' Trainer for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import TrainingArguments

from kdedge.errors import UsageError
from kdedge.nn.batching import Encoded, PaddingCollator
from kdedge.nn.device import native_precision, this_device
from kdedge.recipe import FitConfig
from kdedge.run.processes import processes


@dataclass(frozen=True)
class Training:
    """Everything that `train` needs except the model."""

    fit: FitConfig
    seed: int
    data: Encoded
    pad: PaddingCollator
    predict: Callable[[nn.Module], np.ndarray] | None
    """Model -> logits (N, C) on the validation split; None: the last weights stay."""
    score: Callable[[np.ndarray], float]
    """Logits (N, C) on the validation split -> the metric that chooses the best weights."""
    title: str
    rates: Mapping[str, float] = field(default_factory=dict)
    """Parameter name -> its own learning rate. It follows the schedule; nothing decays it."""


class OneDeviceArguments(TrainingArguments):
    """Arguments of a process that uses one GPU, however many it sees.

    With several visible GPUs, transformers would wrap the model in `DataParallel`: then the loss is
    a vector, and batches have other sizes.
    """

    @property
    def n_gpu(self) -> int:
        return min(1, int(super().n_gpu))


def steps_per_epoch(fit: FitConfig, texts: int) -> int:
    """Return the optimisation steps of one epoch; the last batch and step may be smaller."""
    batches = math.ceil(texts / (fit.batch_size * processes()))
    return math.ceil(batches / fit.gradient_accumulation)


def optimisation_steps(fit: FitConfig, texts: int) -> int:
    """Return the optimisation steps of a training on a number of texts."""
    return max(1, math.ceil(steps_per_epoch(fit, texts) * fit.epochs))


def training_arguments(training: Training, folder: Path) -> TrainingArguments:
    """Translate a training's settings into those of transformers' Trainer.

    Raises:
        UsageError: If the device cannot train in the precision.
    """
    fit = training.fit
    device = this_device()
    precision = native_precision(fit.precision, device)
    if device.type == "cpu" and precision is torch.float16:
        raise UsageError(
            "a CPU cannot train in fp16",
            f'{training.title}: precision = "fp16"',
            'set precision = "auto", "bf16" or "fp32"; or train on a GPU',
        )
    steps = optimisation_steps(fit, len(training.data))
    return OneDeviceArguments(
        output_dir=str(folder),
        num_train_epochs=fit.epochs,
        per_device_train_batch_size=fit.batch_size,
        gradient_accumulation_steps=fit.gradient_accumulation,
        learning_rate=fit.learning_rate,
        warmup_steps=round(steps * fit.warmup),
        weight_decay=fit.weight_decay,
        lr_scheduler_type="linear",
        eval_strategy="steps",
        eval_steps=max(1, math.ceil(steps / fit.checks)),
        save_strategy="no",  # SaveCallback saves
        save_total_limit=2,
        logging_steps=max(1, min(50, steps // 10)),
        logging_nan_inf_filter=False,
        seed=training.seed,
        torch_compile=fit.compile,
        bf16=precision is torch.bfloat16,
        fp16=precision is torch.float16,
        use_cpu=device.type == "cpu",
        disable_tqdm=True,
        dataloader_pin_memory=device.type == "cuda",
        accelerator_config={"non_blocking": device.type == "cuda"},
        remove_unused_columns=False,
        report_to="none",  # _Trainer adds TensorBoard with a folder of its choice
    )
