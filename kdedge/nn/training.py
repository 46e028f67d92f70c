"""How any model is trained here: transformers' Trainer, made resumable, watchful and quiet."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Sampler
from torch.utils.tensorboard import SummaryWriter
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.integrations import TensorBoardCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from kdedge.errors import CheckFailed, Interrupted
from kdedge.nn.batching import Encoded, PaddingCollator
from kdedge.nn.best_checkpoint import BestCheckpoint
from kdedge.nn.device import native_precision, this_device
from kdedge.nn.inference import predict_logits
from kdedge.recipe import FitConfig
from kdedge.run.processes import barrier, is_main, processes
from kdedge.run.progress import SILENT, Progress
from kdedge.run.signals import deferred_signals

SAVE_SECONDS = 60.0
"""A checkpoint is written at least this often, so a kill loses about a minute."""

COMPLETE = "complete"
"""Written into a checkpoint last: a folder without it was cut off while being written."""


@dataclass(frozen=True)
class Training:
    """What is trained on what: everything `train` needs beside the model.

    score: logits (N, C) of the validation split -> the metric that chooses the best moment.
    predict: model -> logits (N, C) on the validation split.
    rates: learning rates of the parameters that have one of their own, by name; they rise and fall as `fit`'s does, and nothing decays them.
    """

    fit: FitConfig
    seed: int
    data: Encoded
    pad: PaddingCollator
    predict: Callable[[nn.Module], np.ndarray]
    score: Callable[[np.ndarray], float]
    title: str
    rates: Mapping[str, float] = field(default_factory=dict)


def train(
    model: nn.Module, training: Training, folder: Path, *, progress: Progress = SILENT
) -> float:
    """Fit `model` in place and leave its best weights in it; returns their score on the validation split.

    model(**batch) returns a mapping with `loss`, `logits` and, if it likes, `parts`: named shares of the loss.
    folder: checkpoints and log.jsonl; a run that was cut off goes on from its last whole checkpoint there.
    Raises GateFailed when the loss or a weight is not finite, Interrupted after saving when a signal arrives.
    """
    folder.mkdir(parents=True, exist_ok=True)
    set_seed(training.seed)
    last = _last_whole_checkpoint(folder)
    best = BestCheckpoint(folder)
    trainer = _Trainer(model, training, folder, best, progress)
    with deferred_signals() as caught:
        trainer.add_callback(_Keeper(caught))
        trainer.train(resume_from_checkpoint=str(last) if last else None)
        barrier()
        if caught:
            raise Interrupted(
                caught[0],
                f"{training.title}: stopped by signal {caught[0]} after step {trainer.state.global_step}; the work is saved",
                "run the same command to go on",
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


class LengthGrouped(Sampler[int]):
    """Batches of like length in random order; a pure function of seed and epoch, so a resumed run sees the same."""

    def __init__(self, lengths: np.ndarray, batch_size: int, seed: int) -> None:
        self.lengths, self.batch_size, self.seed, self.epoch = lengths, batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        chance = np.random.default_rng((self.seed, self.epoch))
        order = chance.permutation(len(self.lengths))
        window = self.batch_size * 50
        batches = []
        for start in range(0, len(order), window):
            near = order[start : start + window]
            near = near[np.argsort(self.lengths[near], kind="stable")]
            batches += [near[i : i + self.batch_size] for i in range(0, len(near), self.batch_size)]
        # The one short batch stays last: only there may a batch of the loader be short.
        short = [b for b in batches if len(b) < self.batch_size]
        whole = [b for b in batches if len(b) == self.batch_size]
        for i in chance.permutation(len(whole)):
            yield from whole[i].tolist()
        for b in short:
            yield from b.tolist()


class _Trainer(Trainer):
    """transformers' Trainer with our loss, our order of examples and our measure of the best moment."""

    def __init__(
        self,
        model: nn.Module,
        training: Training,
        folder: Path,
        best: BestCheckpoint,
        progress: Progress,
    ) -> None:
        device = this_device()
        precision = native_precision(training.fit.precision, device)
        self.training_plan, self.best = training, best
        self.parts: dict[str, list[torch.Tensor]] = {}
        self.log_file = folder / "log.jsonl"
        super().__init__(
            model=model,
            args=_arguments(training, folder, device, precision),
            data_collator=training.pad,
            train_dataset=training.data,
            eval_dataset=training.data,  # asked for by the Trainer; evaluate() below reads the validation split itself
            callbacks=[_Talk(training.title, progress), *_tensorboard(folder)],
        )
        self.model_accepts_loss_kwargs = False
        self.can_return_loss = True
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        plan = self.training_plan
        return LengthGrouped(
            plan.data.lengths, plan.fit.batch_size * self.args.world_size, plan.seed
        )

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        named = dict((model or self.model).named_parameters())
        own = {named[name]: rate for name, rate in self.training_plan.rates.items()}
        for group in optimizer.param_groups:
            group["params"] = [parameter for parameter in group["params"] if parameter not in own]
        for parameter, rate in own.items():
            optimizer.add_param_group({"params": [parameter], "lr": rate, "weight_decay": 0.0})
        return optimizer

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **_: Any
    ) -> Any:
        outputs = model(**inputs)
        loss = outputs["loss"]
        if not torch.isfinite(loss):
            raise CheckFailed(
                "the loss is not finite",
                f"{self.training_plan.title}, step {self.state.global_step}: {float(loss)}",
                "lower the learning rate; nothing was saved over",
            )
        parts = outputs.get("parts", {})
        for name, value in {"loss": loss, **parts}.items():
            self.parts.setdefault(name, []).append(value.detach())
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Every part of the loss, averaged since the last line, to log.jsonl and to the callbacks."""
        means = {
            f"part/{name}": float(torch.stack(values).mean()) for name, values in self.parts.items()
        }
        self.parts.clear()
        super().log(logs | means, start_time)
        if is_main():
            with self.log_file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"step": self.state.global_step, **logs, **means}) + "\n")

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        score = self.training_plan.score(
            self.training_plan.predict(self.accelerator.unwrap_model(self.model))
        )
        if not math.isfinite(score):
            raise CheckFailed(
                "the score on the validation split is not finite",
                self.training_plan.title,
                "lower the learning rate",
            )
        if is_main():
            self.best.offer(
                self.accelerator.unwrap_model(self.model), score, self.state.global_step
            )
        metrics = {"validation_score": score}
        self.log(metrics)
        return metrics


def batches(training: Training) -> int:
    """How many batches each process is shown in a whole training."""
    return max(1, math.ceil(_batches_of_epoch(training) * training.fit.epochs))


def _batches_of_epoch(training: Training) -> int:
    return math.ceil(len(training.data) / (training.fit.batch_size * processes()))


def _arguments(
    training: Training, folder: Path, device: torch.device, precision: torch.dtype | None
) -> TrainingArguments:
    fit = training.fit
    per_epoch = math.ceil(_batches_of_epoch(training) / fit.gradient_accumulation)
    steps = max(1, math.ceil(per_epoch * fit.epochs))
    return TrainingArguments(
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
        save_strategy="no",
        save_total_limit=2,
        logging_steps=max(1, min(50, steps // 10)),
        logging_nan_inf_filter=False,
        seed=training.seed,
        bf16=precision is torch.bfloat16,
        fp16=precision is torch.float16,
        use_cpu=device.type == "cpu",
        disable_tqdm=True,
        dataloader_pin_memory=device.type == "cuda",
        remove_unused_columns=False,
        report_to="none",  # TensorBoard is added by hand, to choose its folder
        label_names=[],
    )


def _tensorboard(folder: Path) -> list[TrainerCallback]:
    return [TensorBoardCallback(SummaryWriter(folder / "tensorboard"))] if is_main() else []


class _Talk(TrainerCallback):
    """Tells a Progress how far the training is, and what the loss was last."""

    def __init__(self, title: str, progress: Progress) -> None:
        self.title, self.progress, self.note = title, progress, ""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.progress.start(self.title, state.max_steps, state.global_step)

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any
    ) -> None:
        logs = logs or {}
        if "validation_score" in logs:
            self.note = f"validation {logs['validation_score']:.4f}"
        elif "part/loss" in logs:
            self.note = f"loss {logs['part/loss']:.4f}"

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.progress.advance(state.global_step, self.note)


class _Keeper(TrainerCallback):
    """Saves by the clock and on a signal, and marks a checkpoint once it is whole."""

    def __init__(self, caught: list[int]) -> None:
        self.caught, self.saved = caught, time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step >= state.max_steps:
            control.should_evaluate = True
        if self.caught:
            control.should_save = control.should_training_stop = True
        elif time.monotonic() - self.saved > SAVE_SECONDS:
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.saved = time.monotonic()
        (Path(args.output_dir) / f"checkpoint-{state.global_step}" / COMPLETE).touch()


def _last_whole_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end; half ones are removed."""
    whole = []
    for checkpoint in folder.glob("checkpoint-*"):
        if (checkpoint / COMPLETE).exists():
            whole.append(checkpoint)
        elif is_main():
            shutil.rmtree(checkpoint)
    barrier()
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


class LabelLossModule(nn.Module):
    """A classifier of transformers as a model that returns its own loss on the labels."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, labels: torch.Tensor, **batch: torch.Tensor) -> dict[str, torch.Tensor]:
        outputs = self.model(labels=labels, **batch)
        return {"loss": outputs.loss, "logits": outputs.logits}


def validation_predictor(data: Encoded, pad: PaddingCollator) -> Any:
    """A function from a training wrapper (its `.model` answers) to logits (N, C) on `data`."""
    return lambda wrapper: predict_logits(wrapper.model, data, pad)
