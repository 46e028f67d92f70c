"""How fast, large and stable are int8 files? TinyBERT 4x312, BiLSTM-150, BERT-base's shape.

    python benchmarks/studies/int8_speed.py build/speed --seconds 300

The study writes the files into the folder and times them. `--small` uses tiny shapes, to check
that it runs. Weights are random: time and bytes do not depend on them. One thread, one text at a
time, all files of a length in one interleaved run; speedups are medians over rounds with their
quartiles. Tokenization is not in the times.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from kdedge.benchmarks.studies._machine_line import machine_line
from kdedge.benchmarks.studies._speed_files import (
    DIRECT,
    ITEMS,
    LENGTHS,
    TRACED,
    BertShape,
    BiLstmShape,
    SpeedFile,
    StudentShape,
    as_tensors,
    open_session,
    random_texts,
    speedup_cell,
    time_together,
    work_of,
    write_files,
)
from onnx import ModelProto, TensorProto, helper, numpy_helper

from kdedge.evaluation.timing import Timings
from kdedge.runtime.session import SLOW_FUSIONS

BASE_SHAPE = "BERT-base shape"
BASE_TORCH = f"{BASE_SHAPE}, torch fp32"
BASE_INT8 = f"{BASE_SHAPE}, {TRACED}"
VARIANTS = ("fp32", DIRECT, "int8", "portable")

STUDENTS = [
    StudentShape(BASE_SHAPE, BertShape(12, 768, 12, 3072), (30522,), (TRACED, DIRECT)),
    StudentShape("TinyBERT", BertShape(), (30522, 8000)),
    StudentShape(
        "TinyBERT of 4 heads and ReLU",
        BertShape(heads=4, activation="relu"),
        (30522, 8000),
        VARIANTS,
    ),
    StudentShape("BiLSTM", BiLstmShape(), (30522, 5000), VARIANTS),
]
SMALL_STUDENTS = [
    StudentShape(BASE_SHAPE, BertShape(2, 64, 4, 128), (9000,), (TRACED, DIRECT)),
    StudentShape("TinyBERT", BertShape(2, 32, 4, 64), (9000, 8000)),
    StudentShape(
        "TinyBERT of 2 heads and ReLU", BertShape(2, 32, 2, 64, "relu"), (9000, 8000), VARIANTS
    ),
    StudentShape("BiLSTM", BiLstmShape(24, 16, 16), (9000, 5000), VARIANTS),
]


def study() -> None:
    """Write the files, time them, and print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--seconds", type=float, default=300.0, help="time for all lengths together"
    )
    parser.add_argument("--small", action="store_true", help="tiny shapes, to check that it runs")
    arguments = parser.parse_args()
    students = SMALL_STUDENTS if arguments.small else STUDENTS
    files = write_files(students, arguments.folder)
    vocabulary = students[0].vocabularies[0]
    untrimmed = [file for file in files if file.vocabulary == vocabulary]
    peak = measure_peak()
    print(f"# int8: speed, bytes, stability\n\nCommand: `python {' '.join(sys.argv)}`.\n")
    for student in students:
        sizes = ", ".join(f"{name} {size}" for name, size in asdict(student.shape).items())
        print(f"- {student.name}: {sizes}; vocabulary {vocabulary:,}")
    print(f"\n{machine_line()}")
    print(
        f"int8 peak of one core, as measured with MatMulIntegerToFloat: {peak / 1e9:,.0f} GOP/s.\n"
    )
    print_speed(untrimmed, peak, arguments.seconds)
    print_bytes(files)
    print_stability(
        [file for file in untrimmed if file.student != BASE_SHAPE and file.variant != TRACED]
    )


def print_speed(files: Sequence[SpeedFile], peak: float, seconds: float) -> None:
    """Time all files at every length."""
    runs = {file.name: file.open() for file in files}
    named = {file.name: file for file in files}
    vocabulary = files[0].vocabulary
    base_shape = next(file.shape for file in files if file.student == BASE_SHAPE)
    base = base_shape.model(vocabulary)

    def run_torch(inputs: Mapping[str, torch.Tensor]) -> None:
        with torch.inference_mode():
            base(**inputs)

    for length in LENGTHS:
        items = [random_texts(1, length, vocabulary, seed) for seed in range(ITEMS)]
        works = {name: work_of(run, items) for name, run in runs.items()}
        works[BASE_TORCH] = work_of(run_torch, [as_tensors(item) for item in items])
        timed = time_together(works, ITEMS, seconds / len(LENGTHS))
        rounds = len(timed[BASE_TORCH].rounds)
        print(f"## {length} tokens, one text at a time, {rounds} rounds\n")
        print(
            f"| file | p50 µs | against {TRACED} | against {DIRECT} | against {BASE_TORCH} |"
            f" against {BASE_INT8} | share of the int8 peak |"
        )
        print("|---|---|---|---|---|---|---|")
        for name in timed:
            share = _peak_share(named.get(name), length, timed[name].p50, peak)
            print(f"| {' | '.join([name, *_speed_cells(name, timed), share])} |")
        print()


def _speed_cells(name: str, timed: Mapping[str, Timings]) -> list[str]:
    """Median time, and speedups against two files of the student and two of the base."""
    student = name.partition(", ")[0]
    timings = timed[name]
    cells = [f"{1e6 * timings.p50:,.0f}"]
    for variant in (TRACED, DIRECT):
        base = f"{student}, {variant}"
        comparable = base in timed and base != name
        cells.append(speedup_cell(timed[base], timings) if comparable else "")
    cells += [speedup_cell(timed[base], timings) for base in (BASE_TORCH, BASE_INT8)]
    return cells


def _peak_share(file: SpeedFile | None, length: int, seconds: float, peak: float) -> str:
    if file is None or not file.variant.startswith("int8"):
        return ""
    return f"{100 * file.shape.integer_operations(length) / seconds / peak:.0f} %"


def measure_peak(size: int = 1024) -> float:
    """Measure operations per second of a uint8 times 7-bit product on one core, best of 20."""
    run = open_session(_product_graph(size), SLOW_FUSIONS)
    left = np.random.default_rng(1).integers(0, 256, (size, size)).astype(np.uint8)
    work = work_of(run, [{"x": left}])
    return 2 * size**3 / min(work(0)[0] for _ in range(20))


def _product_graph(size: int) -> ModelProto:
    """Build a graph of one square matrix product in integers."""
    weight = np.random.default_rng(0).integers(-63, 64, (size, size)).astype(np.int8)
    scale = np.array(1e-3, np.float32)
    node = helper.make_node(
        "MatMulIntegerToFloat", ["x", "w", "a", "b"], ["logits"], domain="com.microsoft"
    )
    graph = helper.make_graph(
        [node],
        "peak",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [size, size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [size, size])],
        [
            numpy_helper.from_array(weight, "w"),
            numpy_helper.from_array(scale, "a"),
            numpy_helper.from_array(scale, "b"),
        ],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def print_bytes(files: Sequence[SpeedFile]) -> None:
    """Compare each file with the file of the same student and a smaller vocabulary."""
    print("## Bytes\n\n| file | whole vocabulary | trimmed |\n|---|---|---|")
    for file in files:
        for trimmed in files:
            if trimmed.name == file.name and trimmed.vocabulary < file.vocabulary:
                print(
                    f"| {file.name} | {file.path.stat().st_size:,} |"
                    f" {trimmed.path.stat().st_size:,} (vocabulary {trimmed.vocabulary:,}) |"
                )
    print()


def print_stability(files: Sequence[SpeedFile]) -> None:
    """Compare a text alone with the same text in a batch of 32 texts of other lengths."""
    print("## A text alone against the same text among 31 of other lengths\n")
    print("| file | largest logit difference | predictions changed |\n|---|---|---|")
    lengths = np.linspace(2, 128, 32).astype(int)
    texts = random_texts(32, 128, 5000)
    mask = (np.arange(128) < lengths[:, None]).astype(np.int64)
    batch = {**texts, "input_ids": texts["input_ids"] * mask, "attention_mask": mask}
    for file in files:
        run = file.open()
        batched = run(batch)
        rows = []
        for i, length in enumerate(lengths):
            rows.append(run({name: values[i : i + 1, :length] for name, values in batch.items()}))
        alone = np.concatenate(rows)
        difference = np.abs(batched - alone).max()
        changed = int((batched.argmax(1) != alone.argmax(1)).sum())
        print(f"| {file.name} | {difference:.2g} | {changed} |")


if __name__ == "__main__":
    study()
