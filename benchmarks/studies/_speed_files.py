"""Students of given shapes with random weights: their ONNX files, inputs, sessions and timings.

Weights are random because time and bytes do not depend on them.

`traced, dynamic` is what a common exporter writes: the model traced by torch, then
quantize_dynamic with its defaults except per-channel weights. `direct, dynamic` is the same
quantizer on kdedge's own graph, whose last layer computes only the first token.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from kdedge.export.calibrate import calibrate
from kdedge.export.dynamic_int8 import quantize
from kdedge.export.fake_model import fake_quantized
from kdedge.export.graph import to_onnx
from kdedge.export.int8_writer import to_int8
from kdedge.export.portable import to_portable
from kdedge.export.scheme import QuantScheme
from onnxruntime.quantization import quantize_dynamic
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, PreTrainedModel

from kdedge.cli.console import ConsoleProgress
from kdedge.evaluation.timing import TimingPlan, Timings, Work, interleave, speedup_quartiles
from kdedge.runtime.session import SLOW_FUSIONS
from kdedge.students.bilstm import BiLstmForSequenceClassification, BiLstmModelConfig
from kdedge.students.vocabulary import trimmed_model

TRACED = "traced, dynamic"
DIRECT = "direct, dynamic"

LENGTHS = (8, 32, 128)
"""Tokens per text."""

ITEMS = 16
"""Different texts of each length."""

Run = Callable[[Mapping[str, np.ndarray]], np.ndarray]
"""Inputs of a batch to logits (B, C)."""


@dataclass(frozen=True)
class BertShape:
    """Shape of a BERT classifier; the default is TinyBERT 4x312."""

    layers: int = 4
    hidden: int = 312
    heads: int = 12
    intermediate: int = 1200
    activation: str = "gelu"

    def model(self, vocabulary: int) -> PreTrainedModel:
        config = BertConfig(
            vocab_size=vocabulary,
            num_hidden_layers=self.layers,
            hidden_size=self.hidden,
            num_attention_heads=self.heads,
            intermediate_size=self.intermediate,
            hidden_act=self.activation,
        )
        return BertForSequenceClassification(config).eval()

    def integer_operations(self, length: int, labels: int = 2) -> int:
        """Count integer multiplications and additions for one text of `length` tokens.

        The last layer computes only what the first token needs.
        """
        hidden = self.hidden
        key_value = 2 * hidden**2
        query_output_mlp = 2 * hidden**2 + 2 * hidden * self.intermediate
        layers = (self.layers - 1) * length * (key_value + query_output_mlp)
        last_layer = length * key_value + query_output_mlp
        head = hidden * (hidden + labels)
        return 2 * (layers + last_layer + head)

    @property
    def encoder_weights(self) -> int:
        """Weights of the matrices in the encoder."""
        return self.layers * (4 * self.hidden**2 + 2 * self.hidden * self.intermediate)


@dataclass(frozen=True)
class BiLstmShape:
    """Shape of a BiLSTM classifier."""

    embedding: int = 300
    hidden: int = 150
    head: int = 200

    def model(self, vocabulary: int) -> PreTrainedModel:
        config = BiLstmModelConfig(
            vocab_size=vocabulary,
            embedding_dim=self.embedding,
            hidden_size=self.hidden,
            head_size=self.head,
        )
        return BiLstmForSequenceClassification(config).eval()

    def integer_operations(self, length: int, labels: int = 2) -> int:
        """Count integer multiplications and additions for one text of `length` tokens."""
        lstm = length * 2 * 4 * self.hidden * (self.embedding + self.hidden)
        head = self.head * (2 * self.hidden + labels)
        return 2 * (lstm + head)


@dataclass(frozen=True)
class StudentShape:
    """A student and the files to write.

    Attributes:
        name: The student's name in tables.
        shape: Its sizes.
        vocabularies: Sizes of the vocabulary, the whole one first.
        variants: Files to write, or None for all that the student can have.
    """

    name: str
    shape: BertShape | BiLstmShape
    vocabularies: tuple[int, ...]
    variants: tuple[str, ...] | None = None


@dataclass(frozen=True)
class SpeedFile:
    """A written file."""

    student: str
    variant: str
    vocabulary: int
    shape: BertShape | BiLstmShape
    path: Path

    @property
    def name(self) -> str:
        return f"{self.student}, {self.variant}"

    def open(self) -> Run:
        """Open the file: a traced one with ONNX Runtime's defaults, others as kdedge does."""
        return open_session(self.path, [] if self.variant == TRACED else SLOW_FUSIONS)


def write_files(students: Sequence[StudentShape], folder: Path) -> list[SpeedFile]:
    """Write all files of the students into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    files: list[SpeedFile] = []
    for student in students:
        files += _write_student(student, folder)
    return files


def _write_student(student: StudentShape, folder: Path) -> Iterator[SpeedFile]:
    whole = student.vocabularies[0]
    model = student.shape.model(whole)
    for vocabulary in student.vocabularies:
        trimmed = model
        if vocabulary < whole:
            trimmed = trimmed_model(model, np.arange(vocabulary), 0).eval()
        for variant, graph in _graphs(trimmed, student.variants):
            name = f"{student.name}-{variant}-{vocabulary}.onnx".replace("…", "TinyBERT")
            path = folder / name.replace(", ", "-").replace(" ", "_")
            onnx.save(graph, path)
            ConsoleProgress().say(f"wrote {path}")
            yield SpeedFile(student.name, variant, vocabulary, student.shape, path)


def _graphs(
    model: PreTrainedModel, variants: tuple[str, ...] | None
) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Yield the graphs of a model; ranges are calibrated on random texts."""
    is_bert = isinstance(model, BertForSequenceClassification)
    fp32 = to_onnx(model)
    static = QuantScheme(activations="static")
    writers: dict[str, Callable[[], onnx.ModelProto]] = {
        TRACED: lambda: traced(model),
        "fp32": lambda: fp32,
        DIRECT: lambda: quantize(fp32, QuantScheme()),
        "int8": lambda: to_int8(calibrated(model, static)),
        "portable": lambda: to_portable(calibrated(model, static)),
    }
    for variant, write in writers.items():
        requested = variants is None or variant in variants
        if requested and (is_bert or variant != TRACED):
            yield variant, write()


def calibrated(model: PreTrainedModel, scheme: QuantScheme) -> PreTrainedModel:
    """Insert fake quantization and calibrate its ranges on random texts."""
    quantized = fake_quantized(model, scheme).eval()
    batches = [as_tensors(random_texts(4, length, model.config.vocab_size)) for length in (16, 32)]
    calibrate(quantized, model, batches, coverages=(1.0,))
    return quantized


def random_texts(rows: int, length: int, vocabulary: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Draw random tokens. *Shape:* (rows, length) for each input."""
    generator = np.random.default_rng([seed, rows, length])
    ids = generator.integers(5, min(vocabulary, 5000), (rows, length))
    return {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "token_type_ids": np.zeros_like(ids),
    }


def as_tensors(inputs: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(values) for name, values in inputs.items()}


def traced(model: PreTrainedModel) -> onnx.ModelProto:
    """Trace a BERT with torch and quantize the graph to dynamic int8."""
    inputs = as_tensors(random_texts(2, 16, model.config.vocab_size))
    with tempfile.TemporaryDirectory() as folder:
        fp32 = Path(folder) / "fp32.onnx"
        int8 = Path(folder) / "int8.onnx"
        torch.onnx.export(
            Logits(model).eval(),
            tuple(inputs.values()),
            fp32,
            input_names=list(inputs),
            output_names=["logits"],
            dynamic_axes={name: {0: "batch", 1: "length"} for name in inputs},
            opset_version=17,
            dynamo=False,
        )
        quantize_dynamic(fp32, int8, per_channel=True)
        return onnx.load(int8)


class Logits(nn.Module):
    """A classifier that takes its inputs by position and returns only logits."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
    ) -> torch.Tensor:
        logits: torch.Tensor = self.model(input_ids, attention_mask, token_type_ids).logits
        return logits


def open_session(graph: onnx.ModelProto | Path, disabled: list[str]) -> Run:
    """Open a graph on one thread; `disabled` names optimizers of ONNX Runtime to switch off."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    source = str(graph) if isinstance(graph, Path) else graph.SerializeToString()
    session = onnxruntime.InferenceSession(
        source, options, providers=["CPUExecutionProvider"], disabled_optimizers=disabled
    )
    names = [item.name for item in session.get_inputs()]

    def run(inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        feeds = {name: inputs[name] for name in names}
        return np.asarray(session.run(["logits"], feeds)[0])

    return run


def work_of(run: Callable[[Any], Any], items: Sequence[Any]) -> Work:
    """Make a work for `interleave`: run one item and return its seconds."""

    def work(item: int) -> tuple[float, ...]:
        start = time.perf_counter()
        run(items[item])
        return (time.perf_counter() - start,)

    return work


def time_together(works: Mapping[str, Work], items: int, seconds: float) -> dict[str, Timings]:
    """Time all works in one interleaved run."""
    timed = interleave(works, items, TimingPlan(seconds))
    return {name: parts[0] for name, parts in timed.items()}


def speedup_cell(base: Timings, timings: Timings, digits: int = 2) -> str:
    """Format the speedup as `median [quartiles]`."""
    median, low, high = speedup_quartiles(base, timings)
    return f"{median:.{digits}f}x [{low:.{digits}f}-{high:.{digits}f}]"
