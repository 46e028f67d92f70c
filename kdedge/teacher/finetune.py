"""Prepare one teacher: load a fine-tuned model, or fine-tune an encoder."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from kdedge.data.task import Task
from kdedge.errors import MachineError, UsageError, first_line
from kdedge.io.hub import BRING_HINT
from kdedge.io.model_files import hash_model
from kdedge.io.paths import loadable_name, resolve_model_path
from kdedge.nn.device import this_device
from kdedge.nn.label_loss import LabelLossModule, validation_predictor
from kdedge.nn.labels import label_config
from kdedge.nn.text_model import (
    VALIDATION_LOGITS,
    TextClassifier,
    save_measured,
    score_of,
)
from kdedge.nn.tokenization import load_tokenizer
from kdedge.nn.training import train
from kdedge.nn.training_plan import Training
from kdedge.nn.training_stage import training_stage
from kdedge.recipe import TeacherConfig
from kdedge.recipe.sizes import usable_positions
from kdedge.run.layout import RunDir
from kdedge.run.progress import SILENT, Progress
from kdedge.run.stage import DEFAULT_STAGES, StageContext
from kdedge.runtime.spec import TaskSpec
from kdedge.teacher.label_order import check_label_names, check_label_order
from kdedge.teacher.result import TeacherResult

Teacher = TextClassifier

LOAD_HINT = f"give a folder with config.json and model.safetensors; for a hub id, {BRING_HINT}"


def load_teacher(
    name: str | Path, spec: TaskSpec, max_length: int, revision: str | None = None
) -> Teacher:
    """Load a fine-tuned teacher onto this machine's device, in evaluation mode.

    Args:
        name: A folder, `package:` path or hub id.
        spec: The task that the teacher must fit.
        max_length: Maximum tokens per text; capped at the model's number of positions.
        revision: Revision on the hub.

    Raises:
        UsageError: If its outputs do not fit the task.
        MachineError: If it cannot be loaded.
    """
    device = this_device()
    model = _load_model(str(name), revision, weights_type(device))
    if model.config.num_labels != spec.outputs:
        raise UsageError(
            "the teacher was fine-tuned for another task",
            f"{name} has {model.config.num_labels} outputs, "
            f"the task {spec.outputs}: {', '.join(spec.labels[:8])}",
            "set teacher.fine_tune = true, or name a teacher of this task",
        )
    check_label_names(model, spec, name)
    tokenizer = load_tokenizer(name, revision)
    _name_padding(model, tokenizer)
    return Teacher(model.to(device).eval(), tokenizer, cap_length(model, max_length))


def load_encoder(config: TeacherConfig, spec: TaskSpec) -> Teacher:
    """Load an encoder with a new head for the task, before it is fine-tuned.

    Raises MachineError if it cannot be loaded.
    """
    tokenizer = load_tokenizer(config.model, config.revision)
    model = _load_model(
        config.model,
        config.revision,
        torch.float32,
        ignore_mismatched_sizes=True,
        **label_config(spec),
    )
    _name_padding(model, tokenizer)
    return Teacher(model.to(this_device()), tokenizer, cap_length(model, config.max_length))


def weights_type(device: torch.device) -> torch.dtype | str:
    """Return the dtype in which a finished teacher's weights are loaded.

    On a GPU it is the stored one: a large teacher in 16 bits takes half of the memory. CPUs
    compute in fp32.
    """
    return "auto" if device.type == "cuda" else torch.float32


def _name_padding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """Set the padding token of a decoder, which needs it to classify batches."""
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id


def _load_model(
    name: str, revision: str | None, dtype: torch.dtype | str, **settings: Any
) -> PreTrainedModel:
    try:
        return AutoModelForSequenceClassification.from_pretrained(
            loadable_name(name),
            # With this name alone transformers takes the hub's converted copy of a .bin file.
            revision=revision or "main",
            use_safetensors=True,
            dtype=dtype,
            **settings,
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise _cannot_load(name, error) from error


def load_config(name: str, revision: str | None) -> PretrainedConfig:
    """Load the configuration of a folder, `package:` path or hub id.

    Raises MachineError if it cannot be loaded.
    """
    try:
        path = loadable_name(name)
        return AutoConfig.from_pretrained(path, revision=revision)
    except (OSError, ValueError) as error:
        raise _cannot_load(name, error) from error


def _cannot_load(name: str, error: Exception) -> MachineError:
    return MachineError("the teacher cannot be loaded", f"{name}: {first_line(error)}", LOAD_HINT)


def cap_length(model: PreTrainedModel, max_length: int) -> int:
    """Return `max_length`, or the model's number of positions if that is smaller."""
    if not getattr(model.config, "max_position_embeddings", None):
        return max_length
    return min(max_length, usable_positions(model.config.to_dict()))


def _has_head_for(purpose: str, config: PretrainedConfig) -> bool:
    return any(kind.endswith(f"For{purpose}") for kind in config.architectures or [])


def has_head(name: str, spec: TaskSpec, revision: str | None = None) -> bool:
    """Return whether a checkpoint has a classification head with the task's number of outputs."""
    config = load_config(name, revision)
    same_outputs = bool(config.num_labels == spec.outputs)
    return same_outputs and _has_head_for("SequenceClassification", config)


def check_head(teacher: TeacherConfig, config: PretrainedConfig) -> None:
    """Raise UsageError if a teacher that is not fine-tuned lacks a classification head.

    transformers would give it a random head. A config.json that names no architecture is trusted.
    """
    if teacher.fine_tune is not False or not config.architectures:
        return
    if not _has_head_for("SequenceClassification", config):
        raise UsageError(
            "the teacher has no classification head",
            f"{teacher.model} is a {', '.join(config.architectures)}",
            "set teacher.fine_tune = true, or name a teacher that was fine-tuned for the task",
        )


def guesses_masked_words(name: str, revision: str | None = None) -> bool:
    """Return whether a checkpoint's config.json names a masked language model."""
    return _has_head_for("MaskedLM", load_config(name, revision))


def prepare_teacher(
    config: TeacherConfig,
    task: Task,
    folder: Path,
    *,
    seed: int = 0,
    stages: StageContext = DEFAULT_STAGES,
) -> TeacherResult:
    """Run the stage of one teacher, which saves weights, tokenizer, test logits and scores.

    An encoder without a head for the task is fine-tuned first.

    Raises:
        UsageError: If a finished teacher does not fit the task, or has its labels in another order.
        MachineError: If the teacher cannot be loaded.
    """
    fine_tune = config.fine_tune
    if fine_tune is None:
        fine_tune = not has_head(config.model, task.spec, config.revision)
    inputs = {
        "teacher": config.model_dump(mode="json"),
        "weights": pretrained_hash(config),
        "data": task.content_hash(),
        "seed": seed,
    }

    def make(part: Path) -> dict[str, Any]:
        start = time.monotonic()
        if fine_tune:
            teacher = fine_tune_teacher(config, task, part, seed=seed, progress=stages.progress)
        else:
            teacher = load_teacher(config.model, task.spec, config.max_length, config.revision)
        seconds = time.monotonic() - start
        measured = save_measured(teacher, task, part, progress=stages.progress)
        if not fine_tune:
            logits = np.load(part / VALIDATION_LOGITS, allow_pickle=False)
            check_label_order(teacher.model, task.spec, logits, task.validation.labels)
        result = TeacherResult(
            **measured.to_json(), model=config.model, fine_tuned=fine_tune, seconds=seconds
        )
        return result.to_json()

    return TeacherResult.from_json(training_stage(folder, inputs, make, stages))


def pretrained_hash(config: TeacherConfig) -> str:
    """Return a hash of a teacher's weights before fine-tuning; for the hub its id and revision."""
    path = resolve_model_path(config.model)
    if path:
        return hash_model(path)
    return f"{config.model}@{config.revision}" if config.revision else config.model


def teacher_hash(run: RunDir) -> str:
    """Return a hash of the weights of a run's teacher."""
    return hash_model(run.teacher)


def fine_tune_teacher(
    config: TeacherConfig, task: Task, folder: Path, *, seed: int, progress: Progress = SILENT
) -> Teacher:
    """Fine-tune an encoder with a new head on the labels; `folder` receives checkpoints."""
    torch.manual_seed(seed)
    teacher = load_encoder(config, task.spec)
    model = teacher.model
    if task.spec.kind == "regression" and not has_head(config.model, task.spec, config.revision):
        predict_mean_first(model, float(task.train.labels.mean()))
    data = teacher.encode(task.train.texts, task.train.pairs, labels=task.train.labels)
    validation = teacher.encode(task.validation.texts, task.validation.pairs)
    training = Training(
        fit=config.fit,
        seed=seed,
        data=data,
        pad=teacher.pad,
        predict=validation_predictor(validation, teacher.pad, config.fit.precision),
        score=lambda logits: score_of(task.spec, logits, task.validation),
        title="fine-tuning the teacher",
    )
    train(LabelLossModule(model), training, folder, progress=progress)
    model.eval()
    return teacher


@torch.no_grad()
def predict_mean_first(model: PreTrainedModel, mean: float) -> None:
    """Set the bias of a new regression head to the mean label.

    With a bias of 0, hundreds of steps pass before an encoder predicts more than the mean: AdamW
    moves a bias by at most the learning rate in each step. A head without a bias stays as it is.
    """
    encoder = set(model.base_model.modules())
    head = [module for module in model.modules() if module not in encoder]
    outputs = [module for module in head if isinstance(module, nn.Linear)][-1]
    if outputs.bias is not None:
        outputs.bias.fill_(mean)
