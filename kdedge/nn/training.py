"""Train any model with transformers' Trainer: resumable, reproducible, and logged to files."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Sampler
from torch.utils.tensorboard import SummaryWriter
from transformers import (
    Trainer,
    TrainerCallback,
    TrainerControl,
    set_seed,
)
from transformers.integrations import TensorBoardCallback
from transformers.trainer_callback import PrinterCallback

from kdedge.errors import CheckFailed, Interrupted
from kdedge.nn.batch_size import BatchSize
from kdedge.nn.batching import LengthGrouped
from kdedge.nn.best_checkpoint import BestCheckpoint
from kdedge.nn.memory import is_out_of_memory, release_memory
from kdedge.nn.micro_batches import WHOLE_BATCH, MicroBatch, micro_batches
from kdedge.nn.training_callbacks import COMPLETE, ProgressCallback, SaveCallback
from kdedge.nn.training_plan import Training, training_arguments
from kdedge.run.processes import barrier, is_main
from kdedge.run.progress import SILENT, Progress
from kdedge.run.signals import deferred_signals


def train(
    model: nn.Module, training: Training, folder: Path, *, progress: Progress = SILENT
) -> float:
    """Train `model` in place and leave its best weights in it.

    If memory runs out, batches are computed in micro-batches whose gradients are added.

    Args:
        model: `model(**batch)` returns a mapping with `loss`, `logits` and, optionally, `parts`:
            named parts of the loss for the log. For a micro-batch, `model` also gets
            `micro_batch`, and multiplies the loss and its parts by its share of the batch.
        training: Data, settings and how to score.
        folder: For checkpoints and log.jsonl. A training that was interrupted continues from its
            last complete checkpoint in it. The best weights stay until `remove_best` is called, so
            that a finished training is not repeated.
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
    if best.is_final:
        progress.say(f"{training.title}: already trained")
        return best.restore(model)
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
        best.mark_final()
        for checkpoint in folder.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
    progress.finish()
    model.zero_grad()
    del trainer  # with the states of its optimizer
    release_memory()
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
            args=training_arguments(training, folder),
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
        """Add the gradient of a batch; compute it in micro-batches if memory runs out."""
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
        """Add the gradient of a batch, one micro-batch after the other; return its loss."""
        if len(inputs["attention_mask"]) <= self.batch_size.size:
            loss: torch.Tensor = super().training_step(model, inputs)
            return loss
        losses = []
        for part, micro_batch in micro_batches(inputs, self.batch_size.size):
            losses.append(super().training_step(model, {**part, "micro_batch": micro_batch}))
        return torch.stack(losses).sum()

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **_: Any
    ) -> Any:
        """Return the model's own loss, and collect its parts for the log."""
        outputs = model(**inputs)
        loss = outputs["loss"]
        self._collect(
            {"loss": loss, **outputs.get("parts", {})}, inputs.get("micro_batch", WHOLE_BATCH)
        )
        return (loss, outputs) if return_outputs else loss

    def _collect(self, parts: dict[str, torch.Tensor], micro_batch: MicroBatch) -> None:
        """Collect the parts of a loss for the log; those of a batch's micro-batches are added."""
        for name, value in parts.items():
            if name not in self.batch_parts:
                self.batch_parts[name] = torch.zeros_like(value.detach())
            self.batch_parts[name] += value.detach()
        if micro_batch.is_last:
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
