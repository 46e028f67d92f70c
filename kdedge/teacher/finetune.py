"""The big model: bring a fine-tuned one or fine-tune an encoder, and measure it either way."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
)

from kdedge.data.task import Task
from kdedge.errors import MachineError, UsageError, first_line
from kdedge.io.atomic import hash_files
from kdedge.io.paths import resolve_model_path
from kdedge.nn.device import this_device
from kdedge.nn.labels import label_config
from kdedge.nn.text_model import TextClassifier, save_measured
from kdedge.nn.tokenization import load_tokenizer
from kdedge.nn.training import LabelLossModule, Training, train, validation_predictor
from kdedge.recipe import TeacherConfig
from kdedge.run.progress import SILENT, Progress
from kdedge.run.stage import DEFAULT_STAGES, WEIGHTS, StageContext, stage
from kdedge.runtime import metrics
from kdedge.runtime.spec import TaskSpec

Teacher = TextClassifier


def load_teacher(
    name: str | Path, spec: TaskSpec, max_length: int, revision: str | None = None
) -> Teacher:
    """A fine-tuned teacher from a folder, `package:` place or hub id, on this machine's device, in evaluation mode.

    Raises UsageError when its outputs are not those of the task.
    """
    model = _load(str(name), revision)
    if model.config.num_labels != spec.outputs:
        raise UsageError(
            "the teacher does not answer this task",
            f"{name} has {model.config.num_labels} outputs, the task {spec.outputs}: {', '.join(spec.labels[:8])}",
            "set teacher.fine_tune = true, or name a teacher of this task",
        )
    _same_order_of_labels(model, spec, name)
    return Teacher(
        model.to(this_device()).eval(),
        load_tokenizer(name, revision),
        _cap_length(model, max_length),
    )


def _same_order_of_labels(model: PreTrainedModel, spec: TaskSpec, name: str | Path) -> None:
    theirs = [str(model.config.id2label[i]).casefold() for i in range(spec.outputs)]
    ours = [label.casefold() for label in spec.labels]
    if theirs != ours and set(theirs) == set(ours):
        place = next(i for i in range(spec.outputs) if theirs[i] != ours[i])
        raise UsageError(
            "the teacher's labels stand in another order than the task's",
            f"{name}: output {place} is {theirs[place]}, label {place} of the task {ours[place]}",
            "list task.labels in the teacher's order if the data names its labels; else relabel the data",
        )


def _load(name: str, revision: str | None, **settings: Any) -> PreTrainedModel:
    place = resolve_model_path(name)
    try:
        return AutoModelForSequenceClassification.from_pretrained(
            str(place or name),
            revision=revision,
            use_safetensors=True,
            dtype=torch.float32,
            **settings,
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise MachineError(
            "the teacher cannot be loaded",
            f"{name}: {first_line(error)}",
            "give a folder with config.json and model.safetensors, a package: place, or a hub id that this machine can reach",
        ) from error


def _cap_length(model: PreTrainedModel, max_length: int) -> int:
    """Tokens the positions allow: RoBERTa-like models lose those up to the padding index."""
    positions = getattr(model.config, "max_position_embeddings", None)
    if not positions:
        return max_length
    spent = (
        (model.config.pad_token_id or 0) + 1
        if model.config.model_type in ("roberta", "xlm-roberta", "camembert")
        else 0
    )
    return min(max_length, int(positions) - spent)


def _config(name: str, revision: str | None = None) -> PretrainedConfig:
    place = resolve_model_path(name)
    try:
        return AutoConfig.from_pretrained(str(place or name), revision=revision)
    except (OSError, ValueError) as error:
        raise MachineError(
            "the teacher cannot be loaded",
            f"{name}: {first_line(error)}",
            "give a local folder, a package: place, or allow the hub",
        ) from error


def _is_for(purpose: str, config: PretrainedConfig) -> bool:
    return any(kind.endswith(f"For{purpose}") for kind in config.architectures or [])


def has_head(name: str, spec: TaskSpec, revision: str | None = None) -> bool:
    """Whether a checkpoint already answers a task of this many outputs."""
    config = _config(name, revision)
    return _is_for("SequenceClassification", config) and bool(config.num_labels == spec.outputs)


def guesses_masked_words(name: str, revision: str | None = None) -> bool:
    """Whether a checkpoint has, by its own word, a head for masked words."""
    return _is_for("MaskedLM", _config(name, revision))


def prepare_teacher(
    recipe: TeacherConfig,
    task: Task,
    folder: Path,
    *,
    seed: int = 0,
    stages: StageContext = DEFAULT_STAGES,
) -> dict[str, Any]:
    """The stage `teacher/`: weights, tokenizer, its logits on the test split and its scores.

    An encoder is fine-tuned first; a fine-tuned model is measured, not trusted.
    """
    fine_tune = (
        not has_head(recipe.model, task.spec, recipe.revision)
        if recipe.fine_tune is None
        else recipe.fine_tune
    )
    place = resolve_model_path(recipe.model)
    inputs = {
        "teacher": recipe.model_dump(mode="json", exclude={"name"}),
        "weights": hash_files(place, WEIGHTS) if place else recipe.model,
        "data": task.content_hash(),
        "seed": seed,
    }

    def make(part: Path) -> dict[str, Any]:
        start = time.monotonic()
        if fine_tune:
            teacher = fine_tune_teacher(recipe, task, part, seed=seed, progress=stages.progress)
        else:
            teacher = load_teacher(recipe.model, task.spec, recipe.max_length, recipe.revision)
        result = {
            "model": recipe.model,
            "fine_tuned": fine_tune,
            "seconds": time.monotonic() - start,
        }
        return result | save_measured(teacher, task, part, progress=stages.progress)

    return stage(folder, inputs, make, stages=stages)


def fine_tune_teacher(
    recipe: TeacherConfig, task: Task, folder: Path, *, seed: int, progress: Progress = SILENT
) -> Teacher:
    """Train an encoder with a new head on the labels; `folder` holds the checkpoints meanwhile."""
    torch.manual_seed(seed)
    tokenizer = load_tokenizer(recipe.model, recipe.revision)
    model = _load(
        recipe.model, recipe.revision, ignore_mismatched_sizes=True, **label_config(task.spec)
    )
    teacher = Teacher(model.to(this_device()), tokenizer, _cap_length(model, recipe.max_length))
    train(
        LabelLossModule(model),
        Training(
            fit=recipe.fit,
            seed=seed,
            data=teacher.encode(task.train.texts, task.train.pairs, labels=task.train.labels),
            pad=teacher.pad,
            predict=validation_predictor(
                teacher.encode(task.validation.texts, task.validation.pairs), teacher.pad
            ),
            score=lambda logits: metrics.score(
                task.spec.metric, task.spec.kind, logits, task.validation.labels
            ),
            title="fine-tuning the teacher",
        ),
        folder,
        progress=progress,
    )
    return Teacher(model.eval(), tokenizer, teacher.max_length)
