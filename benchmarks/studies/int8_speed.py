"""How fast, how large and how steady int8 files are: TinyBERT 4x312 and BiLSTM-150 beside a model of BERT-base's shape.

    python export/studies/speed_files.py build/speed
    python benchmarks/studies/int8_speed.py build/speed --seconds 300 > benchmarks/results/int8-speed.md

With `--small` the first makes tiny shapes: does it run? Weights are random: time and bytes do not depend on them. One thread, one text
at a time, all files of a length in one interleaved run; ratios are medians over rounds with their quartiles. Tokenization is not in
the times. `traced, dynamic` is opened as an exporter's user would, the others as kdedge's runtime opens them.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from kdedge.benchmarks import machine
from onnx import ModelProto, TensorProto, helper, numpy_helper
from transformers import BertConfig, BertForSequenceClassification, PreTrainedModel

from kdedge.evaluation.timing import TimingPlan, Timings, Work, interleave, speedup_quartiles
from kdedge.runtime.classifier import SLOW_FUSIONS

LENGTHS = (8, 32, 128)
ITEMS = 16
BASE_SHAPE, TRACED, DIRECT = "BERT-base shape", "traced, dynamic", "direct, dynamic"
BASE, BASE_INT8 = f"{BASE_SHAPE}, torch fp32", f"{BASE_SHAPE}, {TRACED}"

Run = Callable[[Mapping[str, np.ndarray]], np.ndarray]


@dataclass(frozen=True)
class Made:
    """A file to time; sizes: layers, hidden, heads, intermediate of a BERT, embedding, hidden, head of a BiLSTM; pieces of its vocabulary."""

    student: str
    way: str
    pieces: int
    file: Path
    kind: str
    sizes: Mapping[str, Any]

    @property
    def name(self) -> str:
        return f"{self.student}, {self.way}"

    def opened(self) -> Run:
        return opened(self.file, [] if self.way == TRACED else SLOW_FUSIONS)


def files_in(folder: Path) -> list[Made]:
    """What speed_files.py has written there."""
    listed = json.loads((folder / "files.json").read_text(encoding="utf-8"))["files"]
    return [Made(**entry | {"file": folder / entry["file"]}) for entry in listed]


def study() -> None:
    """Time the files of a folder, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--seconds", type=float, default=300.0, help="of timing, all lengths together"
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    files = files_in(given.folder)
    whole = [one for one in files if one.pieces == max(other.pieces for other in files)]
    peak = measured_peak()
    print(f"# int8: speed, bytes, steadiness\n\nCommand: `python {' '.join(sys.argv)}`.\n")
    for student, one in {one.student: one for one in whole}.items():
        print(
            f"- {student}: {', '.join(f'{name} {size}' for name, size in one.sizes.items())}; {one.pieces:,} pieces"
        )
    print(f"\n{machine.line()}")
    print(
        f"int8 peak of one core, as measured with MatMulIntegerToFloat: {peak / 1e9:,.0f} GOP/s.\n"
    )
    print_speed(whole, peak, given.seconds)
    print_bytes(files)
    print_steadiness([one for one in whole if one.student != BASE_SHAPE and one.way != TRACED])


def bert(sizes: Mapping[str, Any], pieces: int) -> PreTrainedModel:
    named = {
        "num_hidden_layers": "layers",
        "hidden_size": "hidden",
        "num_attention_heads": "heads",
        "intermediate_size": "intermediate",
    }
    return BertForSequenceClassification(
        BertConfig(vocab_size=pieces, **{theirs: sizes[mine] for theirs, mine in named.items()})
    ).eval()


def texts(rows: int, length: int, pieces: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Random tokens (rows, length)."""
    ids = np.random.default_rng([seed, rows, length]).integers(5, min(pieces, 5000), (rows, length))
    return {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "token_type_ids": np.zeros_like(ids),
    }


def opened(graph: ModelProto | Path, without: list[str] = SLOW_FUSIONS) -> Run:
    """Logits (B, C) of texts, on one thread; without: rewrites of ONNX Runtime that are switched off."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    given = str(graph) if isinstance(graph, Path) else graph.SerializeToString()
    session = onnxruntime.InferenceSession(
        given, options, providers=["CPUExecutionProvider"], disabled_optimizers=without
    )
    names = [item.name for item in session.get_inputs()]
    return lambda given: np.asarray(
        session.run(["logits"], {name: given[name] for name in names})[0]
    )


def timed(run: Callable[[Any], Any], items: list[Any]) -> Work:
    def work(item: int) -> tuple[float, ...]:
        start = time.perf_counter()
        run(items[item])
        return (time.perf_counter() - start,)

    return work


def print_speed(files: list[Made], peak: float, seconds: float) -> None:
    runs, shown = {one.name: one.opened() for one in files}, {one.name: one for one in files}
    pieces = files[0].pieces
    base = bert(next(one.sizes for one in files if one.student == BASE_SHAPE), pieces)

    def in_torch(given: Mapping[str, torch.Tensor]) -> None:
        with torch.inference_mode():
            base(**given)

    for length in LENGTHS:
        items = [texts(1, length, pieces, seed) for seed in range(ITEMS)]
        works = {name: timed(run, items) for name, run in runs.items()}
        works[BASE] = timed(
            in_torch,
            [{name: torch.from_numpy(values) for name, values in item.items()} for item in items],
        )
        done = {
            name: parts[0]
            for name, parts in interleave(works, ITEMS, TimingPlan(seconds / len(LENGTHS))).items()
        }
        print(f"## {length} tokens, one text at a time, {len(done[BASE].rounds)} rounds\n")
        print(
            f"| file | p50 µs | against {TRACED} | against {DIRECT} | against {BASE} | against {BASE_INT8} | share of the int8 peak |"
        )
        print("|---|---|---|---|---|---|---|")
        for name, timings in done.items():
            print(speed_row(name, timings, done, shown.get(name), length, peak))
        print()


def speed_row(
    name: str,
    timings: Timings,
    done: Mapping[str, Timings],
    made: Made | None,
    length: int,
    peak: float,
) -> str:
    student, whole = name.partition(", ")[0], made is not None and made.way.startswith("int8")
    own = [
        ratio(done[base], timings) if (base := f"{student}, {way}") in done and base != name else ""
        for way in (TRACED, DIRECT)
    ]
    share = (
        f"{100 * integer_operations(made, length) / timings.p50 / peak:.0f} %"
        if made and whole
        else ""
    )
    return f"| {name} | {1e6 * timings.p50:,.0f} | {' | '.join(own)} | {ratio(done[BASE], timings)} | {ratio(done[BASE_INT8], timings)} | {share} |"


def ratio(base: Timings, row: Timings) -> str:
    middle, low, high = speedup_quartiles(base, row)
    return f"{middle:.2f}x [{low:.2f}-{high:.2f}]"


def integer_operations(made: Made, length: int, labels: int = 2) -> int:
    """Integer multiplications and additions for one text of so many tokens; of a BERT's last layer, what the first token needs."""
    sizes, hidden = made.sizes, made.sizes["hidden"]
    if made.kind == "bilstm":
        return 2 * (
            length * 2 * 4 * hidden * (sizes["embedding"] + hidden)
            + sizes["head"] * (2 * hidden + labels)
        )
    rest = 2 * hidden**2 + 2 * hidden * sizes["intermediate"]
    return int(
        2
        * (
            (sizes["layers"] - 1) * length * (2 * hidden**2 + rest)
            + length * 2 * hidden**2
            + rest
            + hidden * (hidden + labels)
        )
    )


def measured_peak(size: int = 1024) -> float:
    """Operations a second of a square product of uint8 and 7-bit weights on one core, the best of 20."""
    weight = np.random.default_rng(0).integers(-63, 64, (size, size)).astype(np.int8)
    tensors = [
        numpy_helper.from_array(weight, "w"),
        *(numpy_helper.from_array(np.array(1e-3, np.float32), name) for name in ("a", "b")),
    ]
    node = helper.make_node(
        "MatMulIntegerToFloat", ["x", "w", "a", "b"], ["logits"], domain="com.microsoft"
    )
    inputs = [helper.make_tensor_value_info("x", TensorProto.UINT8, [size, size])]
    graph = helper.make_graph(
        [node],
        "peak",
        inputs,
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [size, size])],
        tensors,
    )
    run = opened(
        helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)],
            ir_version=8,
        )
    )
    work = timed(
        run, [{"x": np.random.default_rng(1).integers(0, 256, (size, size)).astype(np.uint8)}]
    )
    return 2 * size**3 / min(work(0)[0] for _ in range(20))


def print_bytes(files: list[Made]) -> None:
    """Whole files beside those of the same student with fewer pieces."""
    print("## Bytes\n\n| file | whole vocabulary | trimmed |\n|---|---|---|")
    for one in files:
        for less in (
            other for other in files if other.name == one.name and other.pieces < one.pieces
        ):
            print(
                f"| {one.name} | {one.file.stat().st_size:,} | {less.file.stat().st_size:,} ({less.pieces:,} pieces) |"
            )
    print()


def print_steadiness(files: list[Made]) -> None:
    """A text alone against the same text in a batch of 32 of other lengths (R14)."""
    print(
        "## A text alone against the same text among 31 of other lengths\n\n| file | largest logit difference | answers changed |\n|---|---|---|"
    )
    lengths = np.linspace(2, 128, 32).astype(int)
    given = texts(32, 128, 5000)
    mask = (np.arange(128) < lengths[:, None]).astype(np.int64)
    together = {
        "input_ids": given["input_ids"] * mask,
        "attention_mask": mask,
        "token_type_ids": given["token_type_ids"],
    }
    for one in files:
        run = one.opened()
        batched = run(together)
        alone = np.concatenate(
            [
                run({key: values[i : i + 1, :length] for key, values in together.items()})
                for i, length in enumerate(lengths)
            ]
        )
        print(
            f"| {one.name} | {np.abs(batched - alone).max():.2g} | {int((batched.argmax(1) != alone.argmax(1)).sum())} |"
        )


if __name__ == "__main__":
    study()
