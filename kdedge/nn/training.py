"""Train any model with transformers' Trainer: resumable, reproducible, and logged to files."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Sampler
from torch.utils.tensorboard import SummaryWriter
from transformers import (
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainingArguments,
    set_seed,
)
from transformers.integrations import TensorBoardCallback
from transformers.trainer_callback import PrinterCallback

from kdedge.errors import CheckFailed, Interrupted, UsageError
from kdedge.nn.attention_mask import with_additive_mask
from kdedge.nn.batch_size import BatchSize
from kdedge.nn.batching import Encoded, LengthGrouped, PaddingCollator
from kdedge.nn.best_checkpoint import BestCheckpoint
from kdedge.nn.device import native_precision, this_device
from kdedge.nn.inference import predict_logits
from kdedge.nn.memory import is_out_of_memory, release_memory
from kdedge.nn.pieces import WHOLE, Piece, pieces
from kdedge.nn.training_callbacks import COMPLETE, ProgressCallback, SaveCallback
from kdedge.recipe import FitConfig
from kdedge.run.processes import barrier, is_main, processes
from kdedge.run.progress import SILENT, Progress
from kdedge.run.signals import deferred_signals


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


def train(
    model: nn.Module, training: Training, folder: Path, *, progress: Progress = SILENT
) -> float:
    """Train `model` in place and leave its best weights in it.

    If memory runs out, batches are computed in smaller pieces whose gradients are added.

    Args:
        model: `model(**batch)` returns a mapping with `loss`, `logits` and, optionally, `parts`:
            named parts of the loss for the log. For a piece of a batch, `model` also gets
            `piece`, and multiplies the loss and its parts by the piece's share.
        training: Data, settings and how to score.
        folder: For checkpoints and log.jsonl. A training that was interrupted continues from its
            last complete checkpoint in it.
        progress: Shows steps and loss.

    Returns:
        The score of the best weights on the validation split.

    Raises:
        CheckFailed: If the loss or a weight is not finite.
        Interrupted: If a signal arrives; a checkpoint is saved first.
        MachineError: If memory runs out on a single text.
    """
    folder.mkdir(parents=True, exist_ok=True)
    set_seed(training.seed)
    checkpoint = _last_complete_checkpoint(folder)
    best = BestCheckpoint(folder)
    trainer = _Trainer(model, training, folder, best, progress)
    with deferred_signals() as caught:
        trainer.add_callback(SaveCallback(caught))
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        barrier()
        if caught:
            raise Interrupted(
                caught[0],
                f"{training.title}: stopped by signal {caught[0]} "
                f"after step {trainer.state.global_step}; the work is saved",
                "run the same command to continue",
            )
    score = best.restore(model)
    if not all(bool(torch.isfinite(p).all()) for p in model.parameters()):
        raise CheckFailed(
            "a weight is not finite after training", training.title, "lower the learning rate"
        )
    barrier()
    if is_main():
        for checkpoint in folder.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
        best.remove()
    progress.finish()
    return score


class _Trainer(Trainer):
    """transformers' Trainer with our loss, our order of examples and our best weights."""

    control: TrainerControl

    def __init__(
        self,
        model: nn.Module,
        training: Training,
        folder: Path,
        best: BestCheckpoint,
        progress: Progress,
    ) -> None:
        self.training_plan = training
        self.best = best
        self.parts: dict[str, list[torch.Tensor]] = {}
        self.batch_size = BatchSize(folder, training.fit.batch_size, training.title, progress)
        self.batch_parts: dict[str, torch.Tensor] = {}
        self.since_step: list[dict[str, Any]] = []
        self.steps_done = -1
        self.log_file = folder / "log.jsonl"
        callbacks: list[TrainerCallback] = [ProgressCallback(training.title, progress)]
        if is_main():
            callbacks.append(TensorBoardCallback(SummaryWriter(folder / "tensorboard")))
        super().__init__(
            model=model,
            args=_arguments(training, folder),
            data_collator=training.pad,
            train_dataset=training.data,
            eval_dataset=training.data,  # Trainer requires one; evaluate() below does not use it
            callbacks=callbacks,
        )
        self.model_accepts_loss_kwargs = False
        self.remove_callback(PrinterCallback)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        plan = self.training_plan
        batch_size = plan.fit.batch_size * self.args.world_size
        return LengthGrouped(plan.data.lengths, batch_size, plan.seed)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Move the parameters with their own learning rate into groups of their own."""
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        parameters = dict((model or self.model).named_parameters())
        own_rates = {parameters[name]: rate for name, rate in self.training_plan.rates.items()}
        for group in optimizer.param_groups:
            group["params"] = [p for p in group["params"] if p not in own_rates]
        for parameter, rate in own_rates.items():
            optimizer.add_param_group({"params": [parameter], "lr": rate, "weight_decay": 0.0})
        return optimizer

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Add the gradient of a batch; compute it in smaller pieces if memory runs out."""
        if self.steps_done != self.state.global_step:
            self.steps_done = self.state.global_step
            self.since_step = []
        self.since_step.append(inputs)
        missing = [inputs]
        while True:
            try:
                losses = [self._add_gradient(model, batch) for batch in missing]
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self.batch_size.halve(error)
            else:
                self.batch_size.keep()
                return losses[-1]
            # Outside of `except`: the error holds the frames, and these hold tensors.
            model.zero_grad()
            self.batch_parts = {}
            release_memory()
            # The gradients of earlier batches of the same step are gone, too.
            missing = self.since_step

    def _add_gradient(self, model: nn.Module, inputs: dict[str, Any]) -> torch.Tensor:
        """Add the gradient of a batch, piece by piece; return its loss."""
        if len(inputs["attention_mask"]) <= self.batch_size.size:
            loss: torch.Tensor = super().training_step(model, inputs)
            return loss
        losses = []
        for part, piece in pieces(inputs, self.batch_size.size):
            losses.append(super().training_step(model, {**part, "piece": piece}))
        return torch.stack(losses).sum()

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **_: Any
    ) -> Any:
        """Return the model's own loss, and collect its parts for the log."""
        outputs = model(**inputs)
        loss = outputs["loss"]
        self._collect({"loss": loss, **outputs.get("parts", {})}, inputs.get("piece", WHOLE))
        return (loss, outputs) if return_outputs else loss

    def _collect(self, parts: dict[str, torch.Tensor], piece: Piece) -> None:
        """Collect the parts of a loss for the log; those of a batch's pieces are added."""
        for name, value in parts.items():
            if name not in self.batch_parts:
                self.batch_parts[name] = torch.zeros_like(value.detach())
            self.batch_parts[name] += value.detach()
        if piece.is_last:
            for name, value in self.batch_parts.items():
                self.parts.setdefault(name, []).append(value)
            self.batch_parts = {}

    def _check_losses(self) -> None:
        """Raise CheckFailed if a loss since the last line of the log is not finite.

        All are tested at once: a test at each step would make a GPU wait for the CPU.
        """
        losses = self.parts.get("loss", [])
        if not losses:
            return
        finite = torch.isfinite(torch.stack(losses)).tolist()
        if not all(finite):
            batches = len(losses) - finite.index(False)
            raise CheckFailed(
                "the loss is not finite",
                f"{self.training_plan.title}: {losses[-batches].item()}, {batches} batches before "
                f"the end of step {self.state.global_step}",
                "lower the learning rate; nothing was overwritten",
            )

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self._check_losses()
        super()._save_checkpoint(model, trial)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log every part of the loss, averaged since the last line, to log.jsonl and callbacks.

        Raises:
            CheckFailed: If a loss is not finite.
        """
        self._check_losses()
        means = {}
        for name, values in self.parts.items():
            means[f"part/{name}"] = float(torch.stack(values).mean())
        self.parts.clear()
        super().log(logs | means, start_time)
        if is_main():
            line = json.dumps({"step": self.state.global_step, **logs, **means})
            with self.log_file.open("a", encoding="utf-8") as stream:
                stream.write(line + "\n")

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Score the validation split, and save the weights if they are the best so far."""
        self._check_losses()
        plan = self.training_plan
        model = self.accelerator.unwrap_model(self.model)
        score = 0.0
        metrics: dict[str, float] = {}
        if plan.predict is not None:
            score = plan.score(plan.predict(model))
            metrics = {"validation_score": score}
        if not math.isfinite(score):
            raise CheckFailed(
                "the score on the validation split is not finite",
                plan.title,
                "lower the learning rate",
            )
        if is_main():
            self.best.update(model, score, self.state.global_step)
        self.log(metrics)
        # Without it a check at the end of an epoch would be done twice.
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics


class OneDeviceArguments(TrainingArguments):
    """Arguments of a process that uses one GPU, however many it sees.

    With several visible GPUs, transformers would wrap the model in `DataParallel`: then the loss is
    a vector, and batches have other sizes.
    """

    @property
    def n_gpu(self) -> int:
        return min(1, int(super().n_gpu))


def _batches_per_epoch(training: Training) -> int:
    return math.ceil(len(training.data) / (training.fit.batch_size * processes()))


def _arguments(training: Training, folder: Path) -> TrainingArguments:
    fit = training.fit
    device = this_device()
    precision = native_precision(fit.precision, device)
    if device.type == "cpu" and precision is torch.float16:
        raise UsageError(
            "a CPU cannot train in fp16",
            f'{training.title}: precision = "fp16"',
            'set precision = "auto", "bf16" or "fp32"; or train on a GPU',
        )
    steps_per_epoch = math.ceil(_batches_per_epoch(training) / fit.gradient_accumulation)
    steps = max(1, math.ceil(steps_per_epoch * fit.epochs))
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


def _last_complete_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete checkpoint, and remove incomplete ones."""
    complete = []
    for checkpoint in folder.glob("checkpoint-*"):
        if (checkpoint / COMPLETE).exists():
            complete.append(checkpoint)
        elif is_main():
            shutil.rmtree(checkpoint)
    barrier()
    return max(complete, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


class LabelLossModule(nn.Module):
    """A transformers classifier with its own loss on the labels, in the form of `train`."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, labels: torch.Tensor, piece: Piece = WHOLE, **batch: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        outputs = self.model(labels=labels, **with_additive_mask(self.model, batch))
        return {"loss": piece.texts * outputs.loss, "logits": outputs.logits}


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
