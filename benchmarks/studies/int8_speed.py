"""How fast, how large and how steady int8 files are: TinyBERT 4x312 and BiLSTM-150 beside a model of BERT-base's shape.

    python benchmarks/studies/int8_speed.py --seconds 300 > benchmarks/results/int8-speed.md
    python benchmarks/studies/int8_speed.py --small --seconds 5      # tiny shapes: does it run?

Weights are random: time and bytes do not depend on them. One thread, one text at a time, all files of a length in one
interleaved run; ratios are medians over rounds with their quartiles. Tokenization is not in the times.

`traced, dynamic` is what an exporter gives: the model traced by torch, quantize_dynamic as it stands, a session as it stands.
`direct, dynamic` is the same quantizer on kdedge's own graph, whose last layer computes the first token alone.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from kdedge.benchmarks import machine
from kdedge.benchmarks.timing import Timings, Work, interleave, spread
from kdedge.export.calibrate import calibrate
from kdedge.export.fakemodel import fake_quantized
from kdedge.export.graph import to_onnx
from kdedge.export.int8 import MICROSOFT, to_int8
from kdedge.export.portable import to_portable
from kdedge.export.quantize import quantize
from kdedge.export.scheme import QuantScheme
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import quantize_dynamic
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, PreTrainedModel

from kdedge.runtime.classifier import SLOW_FUSIONS
from kdedge.students.bilstm import BiLstmConfig, BiLstmForSequenceClassification
from kdedge.students.vocabulary import trimmed_model

LENGTHS = (8, 32, 128)
ITEMS = 16
BASE, BASE_INT8 = "BERT-base shape, torch fp32", "BERT-base shape, traced, dynamic"
TRACED = "traced, dynamic"
FEW_HEADS = "TinyBERT of 4 heads and ReLU"
TRIMMED = {"TinyBERT": 8000, FEW_HEADS: 8000, "BiLSTM": 5000}


@dataclass(frozen=True)
class Shapes:
    """layers, hidden, heads, intermediate of the BERTs; embedding, hidden, head of the BiLSTM; pieces of the vocabulary."""

    base: tuple[int, int, int, int] = (12, 768, 12, 3072)
    tiny: tuple[int, int, int, int] = (4, 312, 12, 1200)
    few_heads: tuple[int, int, int, int] = (4, 312, 4, 1200)
    bilstm: tuple[int, int, int] = (300, 150, 200)
    pieces: int = 30522


SMALL = Shapes((2, 64, 4, 128), (2, 32, 4, 64), (2, 32, 2, 64), (24, 16, 16), 9000)


def study() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--seconds", type=float, default=300.0, help="of timing, all lengths together")
    parser.add_argument("--small", action="store_true", help="tiny shapes, to see that it runs")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    shapes = SMALL if given.small else Shapes()
    base, tiny = bert(shapes.base, shapes.pieces), bert(shapes.tiny, shapes.pieces)
    students = {"TinyBERT": tiny, FEW_HEADS: bert(shapes.few_heads, shapes.pieces, "relu"), "BiLSTM": bilstm(shapes)}
    files = {name: files_of(model) for name, model in students.items()}
    peak = measured_peak(256 if given.small else 1024)
    print(f"# int8: speed, bytes, steadiness\n\nCommand: `python {' '.join(sys.argv)}`; {shapes}.\n")
    print(machine.line())
    print(f"int8 peak of one core, as measured with MatMulIntegerToFloat: {peak / 1e9:,.0f} GOP/s.\n")
    usual = {f"{name}, {TRACED}": opened(traced(model), []) for name, model in (("BERT-base shape", base), ("TinyBERT", tiny))}
    print_speed(base, usual, files, {name: integer_operations(model) for name, model in students.items()}, peak, given.seconds)
    print_bytes(students)
    print_steadiness(files)


def bert(shape: tuple[int, int, int, int], pieces: int, activation: str = "gelu") -> BertForSequenceClassification:
    layers, hidden, heads, intermediate = shape
    sizes = {"num_hidden_layers": layers, "hidden_size": hidden, "num_attention_heads": heads, "intermediate_size": intermediate}
    return BertForSequenceClassification(BertConfig(vocab_size=pieces, hidden_act=activation, **sizes)).eval()


def bilstm(shapes: Shapes) -> BiLstmForSequenceClassification:
    embedding, hidden, head = shapes.bilstm
    sizes = {"embedding_dim": embedding, "hidden_size": hidden, "head_size": head}
    return BiLstmForSequenceClassification(BiLstmConfig(vocab_size=shapes.pieces, **sizes)).eval()


def files_of(model: PreTrainedModel) -> dict[str, onnx.ModelProto]:
    """The files of a student, their ranges from random texts."""
    fp32, made = to_onnx(model), calibrated(model, QuantScheme(activations="static"))
    found = {"fp32": fp32, "direct, dynamic": quantize(fp32, QuantScheme()), "int8": to_int8(made), "portable": to_portable(made)}
    if isinstance(model, BertForSequenceClassification):
        found["int8, attention too"] = to_int8(calibrated(model, QuantScheme(activations="static", attention="integers")))
    return found


def calibrated(model: PreTrainedModel, scheme: QuantScheme) -> PreTrainedModel:
    made = fake_quantized(model, scheme).eval()
    batches = [{name: torch.from_numpy(values) for name, values in texts(4, length, model.config.vocab_size).items()} for length in (16, 32)]
    calibrate(made, model, batches, "minmax")
    return made


def texts(rows: int, length: int, pieces: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Random tokens (rows, length)."""
    ids = np.random.default_rng([seed, rows, length]).integers(5, min(pieces, 5000), (rows, length))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def traced(model: PreTrainedModel) -> onnx.ModelProto:
    """A BERT as torch traces it, in dynamic int8 with the quantizer's own settings."""
    given = {name: torch.from_numpy(values) for name, values in texts(2, 16, model.config.vocab_size).items()}
    axes = {name: {0: "batch", 1: "length"} for name in given}
    with tempfile.TemporaryDirectory() as folder:
        plain, small = Path(folder) / "plain.onnx", Path(folder) / "int8.onnx"
        torch.onnx.export(
            Logits(model).eval(),
            tuple(given.values()),
            plain,
            input_names=list(given),
            output_names=["logits"],
            dynamic_axes=axes,
            opset_version=17,
            dynamo=False,
        )
        quantize_dynamic(plain, small, per_channel=True)
        return onnx.load(small)


class Logits(nn.Module):
    """A classifier called with its inputs in order."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(input_ids, attention_mask, token_type_ids).logits
        return logits


def opened(graph: onnx.ModelProto, without: list[str] = SLOW_FUSIONS) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    """Logits (B, C) of texts, on one thread; without: rewrites of ONNX Runtime that are switched off."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"], disabled_optimizers=without)
    names = [item.name for item in session.get_inputs()]
    return lambda given: np.asarray(session.run(["logits"], {name: given[name] for name in names})[0])


def timed(run: Callable[[Any], Any], items: list[Any]) -> Work:
    def work(item: int) -> tuple[float, ...]:
        start = time.perf_counter()
        run(items[item])
        return (time.perf_counter() - start,)

    return work


def print_speed(
    base: PreTrainedModel,
    runs: Mapping[str, Callable[[Mapping[str, np.ndarray]], np.ndarray]],
    files: Mapping[str, Mapping[str, onnx.ModelProto]],
    operations: Mapping[str, Callable[[int], int]],
    peak: float,
    seconds: float,
) -> None:
    runs = {**runs, "BERT-base shape, direct, dynamic": opened(quantize(to_onnx(base), QuantScheme()))}
    runs |= {f"{student}, {way}": opened(graph) for student, graphs in files.items() for way, graph in graphs.items()}

    def in_torch(given: Mapping[str, torch.Tensor]) -> None:
        with torch.inference_mode():
            base(**given)

    for length in LENGTHS:
        items = [texts(1, length, base.config.vocab_size, seed) for seed in range(ITEMS)]
        works = {name: timed(run, items) for name, run in runs.items()}
        works[BASE] = timed(in_torch, [{name: torch.from_numpy(values) for name, values in item.items()} for item in items])
        done = {name: parts[0] for name, parts in interleave(works, ITEMS, seconds=seconds / len(LENGTHS)).items()}
        print(f"## {length} tokens, one text at a time, {len(done[BASE].rounds)} rounds\n")
        print(f"| file | p50 µs | against traced, dynamic | against direct, dynamic | against {BASE} | against {BASE_INT8} | share of the int8 peak |")
        print("|---|---|---|---|---|---|---|")
        for name, timings in done.items():
            print(speed_row(name, timings, done, operations, length, peak))
        print()


def speed_row(name: str, timings: Timings, done: Mapping[str, Timings], operations: Mapping[str, Callable[[int], int]], length: int, peak: float) -> str:
    student, _, way = name.partition(", ")
    own = [ratio(done[base], timings) if (base := f"{student}, {made}") in done and base != name else "" for made in (TRACED, "direct, dynamic")]
    share = f"{100 * operations[student](length) / timings.p50 / peak:.0f} %" if student in operations and way.startswith("int8") else ""
    return f"| {name} | {1e6 * timings.p50:,.0f} | {' | '.join(own)} | {ratio(done[BASE], timings)} | {ratio(done[BASE_INT8], timings)} | {share} |"


def ratio(base: Timings, row: Timings) -> str:
    middle, low, high = spread(base, row)
    return f"{middle:.2f}x [{low:.2f}-{high:.2f}]"


def integer_operations(model: PreTrainedModel) -> Callable[[int], int]:
    """Integer multiplications and additions for one text of T tokens; of a BERT's last layer, what the first token needs."""
    config = model.config
    if isinstance(model, BiLstmForSequenceClassification):
        step, head = 2 * 4 * config.hidden_size * (config.embedding_dim + config.hidden_size), config.head_size * (2 * config.hidden_size + config.num_labels)
        return lambda length: 2 * (length * step + head)
    hidden, rest = config.hidden_size, 2 * config.hidden_size**2 + 2 * config.hidden_size * config.intermediate_size
    head = hidden * (hidden + config.num_labels)
    return lambda length: 2 * ((config.num_hidden_layers - 1) * length * (2 * hidden**2 + rest) + length * 2 * hidden**2 + rest + head)


def measured_peak(size: int) -> float:
    """Operations a second of a square product of uint8 and 7-bit weights on one core, the best of 20."""
    weight = np.random.default_rng(0).integers(-63, 64, (size, size)).astype(np.int8)
    tensors = [numpy_helper.from_array(weight, "w"), *(numpy_helper.from_array(np.array(1e-3, np.float32), name) for name in ("a", "b"))]
    node = helper.make_node("MatMulIntegerToFloat", ["x", "w", "a", "b"], ["logits"], domain=MICROSOFT)
    inputs = [helper.make_tensor_value_info("x", TensorProto.UINT8, [size, size])]
    graph = helper.make_graph([node], "peak", inputs, [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [size, size])], tensors)
    run = opened(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)], ir_version=8))
    work = timed(run, [{"x": np.random.default_rng(1).integers(0, 256, (size, size)).astype(np.uint8)}])
    return 2 * size**3 / min(work(0)[0] for _ in range(20))


def print_bytes(students: Mapping[str, PreTrainedModel]) -> None:
    print("## Bytes\n\n| file | whole vocabulary | trimmed |\n|---|---|---|")
    for name, model in students.items():
        kept = min(TRIMMED[name], model.config.vocab_size)
        smaller = files_of(trimmed_model(model, np.arange(kept), 0).eval())
        for way, graph in files_of(model).items():
            print(f"| {name}, {way} | {graph.ByteSize():,} | {smaller[way].ByteSize():,} ({kept:,} pieces) |")
    print()


def print_steadiness(files: Mapping[str, Mapping[str, onnx.ModelProto]]) -> None:
    """A text alone against the same text in a batch of 32 of other lengths (R14)."""
    print("## A text alone against the same text among 31 of other lengths\n\n| file | largest logit difference | answers changed |\n|---|---|---|")
    lengths = np.linspace(2, 128, 32).astype(int)
    given = texts(32, 128, 5000)
    mask = (np.arange(128) < lengths[:, None]).astype(np.int64)
    together = {"input_ids": given["input_ids"] * mask, "attention_mask": mask, "token_type_ids": given["token_type_ids"]}
    for name, graphs in files.items():
        for way, graph in graphs.items():
            run = opened(graph)
            batched = run(together)
            alone = np.concatenate([run({key: values[i : i + 1, :length] for key, values in together.items()}) for i, length in enumerate(lengths)])
            print(f"| {name}, {way} | {np.abs(batched - alone).max():.2g} | {int((batched.argmax(1) != alone.argmax(1)).sum())} |")


if __name__ == "__main__":
    study()
