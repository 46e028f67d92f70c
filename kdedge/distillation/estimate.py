"""Estimate the disk space and memory of a run from the shapes of its models, without torch.

Parameters follow from the shapes. Weights are saved in fp32, 4 bytes each. Training with AdamW
holds four fp32 numbers per parameter: weight, gradient and two moments. Activations come on top;
they depend on lengths and batches and are not estimated.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdedge.data.task import Task
from kdedge.io.paths import resolve_model_path
from kdedge.recipe import Recipe, StudentConfig, TinyBertConfig
from kdedge.recipe.sizes import bert_parameters
from kdedge.recipe.students import WORDPIECE_SIZE

BYTES = 4
"""Bytes of a number in fp32."""

TRAINING_NUMBERS = 4
"""Numbers per parameter during training: weight, gradient and two moments of AdamW."""

LOGIT_BYTES = 2

LONGEST_HEADER = 100_000_000
"""Bytes that the header of a safetensors file may have, by its format."""

Shape = Mapping[str, Any]
"""The content of a model's config.json."""


@dataclass(frozen=True)
class Estimate:
    """The least disk space and memory that a run needs.

    Attributes:
        parameters: Model -> its number of parameters.
        disk: Bytes of all saved models, texts and logits.
        memory: Bytes of the largest model in training, without activations.
        layer_cache: Most bytes that the teacher's cached layers may take; 0 if not needed.
        unknown: Models whose shape is not known on this machine; they are not counted.
    """

    parameters: dict[str, int]
    disk: int
    memory: int
    layer_cache: int
    unknown: tuple[str, ...]


def estimate_run(recipe: Recipe, task: Task) -> Estimate:
    """Estimate what `kdedge distill` needs for a recipe whose task is loaded."""
    parameters: dict[str, int] = {}
    unknown: list[str] = []
    copies: dict[str, int] = {}
    teacher = recipe.teacher.model
    _add(parameters, unknown, "teacher", _teacher_parameters(teacher, task.spec.outputs))
    copies["teacher"] = 1
    shapes: dict[str, Shape | None] = {"": model_shape(teacher)}
    for student in recipe.student:
        source = shapes.get(student.assistant or "")
        pieces = _pieces(student, source)
        count = None
        if pieces is not None and source is not None:
            count = student.parameters(pieces, source, task.spec)
            if isinstance(student, TinyBertConfig):
                shapes[student.key] = student.shape(pieces, source)
        _add(parameters, unknown, student.key, count)
        copies[student.key] = _saved_copies(student)
    weights = sum(BYTES * count * copies[name] for name, count in parameters.items())
    reads_layers = any(
        student.objective.reads_layers or student.general_stage for student in recipe.student
    )
    return Estimate(
        parameters=parameters,
        disk=weights + _transfer_bytes(recipe, task),
        memory=BYTES * TRAINING_NUMBERS * max(parameters.values(), default=0),
        layer_cache=int(1e9 * recipe.transfer.layers_gb) if reads_layers else 0,
        unknown=tuple(unknown),
    )


def _saved_copies(student: StudentConfig) -> int:
    """Return how many models of a student's size are saved."""
    earlier = (student.general_stage, student.first_stage)
    return 1 + int(student.baseline) + sum(stage is not None for stage in earlier)


def _add(parameters: dict[str, int], unknown: list[str], name: str, count: int | None) -> None:
    if count is None:
        unknown.append(name)
    else:
        parameters[name] = count


def model_shape(name: str) -> Shape | None:
    """Return the config.json of a model in a folder or package; None for a model on the hub."""
    folder = resolve_model_path(name)
    if folder is None:
        return None
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return config if isinstance(config, dict) else None


def _teacher_parameters(name: str, outputs: int) -> int | None:
    """Count a teacher's parameters from its shape, or from its file if it is not a BERT."""
    shape = model_shape(name)
    if shape is None:
        return None
    if shape.get("model_type") == "bert":
        return bert_parameters(shape, outputs)
    return _saved_numbers(Path(str(resolve_model_path(name)), "model.safetensors"))


def _saved_numbers(file: Path) -> int | None:
    """Count the numbers in a safetensors file by its header; None if it has no such header.

    The header is JSON after its length in bytes, which is a little-endian number of 8 bytes.
    """
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > LONGEST_HEADER:
                return None
            header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        counts: list[int] = [math.prod(tensor["shape"]) for tensor in header.values()]
        return sum(counts)
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return None


def _pieces(student: StudentConfig, source: Shape | None) -> int | None:
    """Return the size of a student's vocabulary; None if it is not known on this machine."""
    if student.vocabulary:
        return student.vocabulary
    if student.tokenizer == "wordpiece":
        return WORDPIECE_SIZE
    name = student.tokenizer or student.checkpoint
    shape = model_shape(name) if name else source
    return None if shape is None else shape.get("vocab_size")


def _transfer_bytes(recipe: Recipe, task: Task) -> int:
    """Estimate the bytes of the transfer set, with new texts as long as the labelled ones."""
    texts = sum(len(text.encode()) for text in (*task.train.texts, *(task.train.pairs or ())))
    logits = LOGIT_BYTES * len(task.train) * task.spec.outputs
    factor = 1.0
    if augment := recipe.augment_in_use:
        factor += augment.size_to_make(len(task.train))
    return round(factor * (texts + logits))
