"""What does a BERT's shape cost in its int8 file? Heads, activation, and depth against width.

    python benchmarks/studies/shapes.py build/shapes --seconds 240

The study writes the files into the folder and times them. Weights are random: time does not
depend on them, and the study does not show what a shape can learn. One thread, one text at a
time, all shapes of a length in one interleaved run.

If OpenVINO is installed (`uv pip install openvino`; kdedge does not need it) the portable file
and the fp32 file run there too, on one thread. OpenVINO chooses the precision of fp32, which is
fp32 on CPUs without bf16.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from kdedge.benchmarks.studies._machine_line import machine_line
from kdedge.benchmarks.studies._speed_files import (
    ITEMS,
    LENGTHS,
    BertShape,
    Run,
    SpeedFile,
    StudentShape,
    random_texts,
    speedup_cell,
    time_together,
    work_of,
    write_files,
)

BASE = "TinyBERT 4x312, 12 heads"
SHAPES = {
    BASE: BertShape(),
    "… 6 heads of 52": BertShape(heads=6),
    "… 4 heads of 78": BertShape(heads=4),
    "… ReLU": BertShape(activation="relu"),
    "… 4 heads, ReLU": BertShape(heads=4, activation="relu"),
    "4x320, 10 heads of 32": BertShape(hidden=320, heads=10, intermediate=1280),
    "4x320, 5 heads of 64": BertShape(hidden=320, heads=5, intermediate=1280),
    "3x384, 12 heads of 32": BertShape(layers=3, hidden=384, intermediate=1536),
    "3x384, 6 heads of 64": BertShape(layers=3, hidden=384, heads=6, intermediate=1536),
    "2x512, 8 heads of 64": BertShape(layers=2, hidden=512, heads=8, intermediate=2048),
    "1x768, 12 heads of 64": BertShape(layers=1, hidden=768, intermediate=3072),
    "2x128, 2 heads of 64": BertShape(layers=2, hidden=128, heads=2, intermediate=512),
}
VOCABULARY = 8000
OPENVINO_SHAPES = (BASE, "3x384, 6 heads of 64")
"""Shapes that OpenVINO runs too."""


def study() -> None:
    """Write the files, time them, and print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--seconds", type=float, default=240.0, help="time for all lengths together"
    )
    arguments = parser.parse_args()
    variants = ("fp32", "int8", "portable")
    students = [
        StudentShape(name, shape, (VOCABULARY,), variants) for name, shape in SHAPES.items()
    ]
    runs = runs_of(write_files(students, arguments.folder))
    print("# int8: what a shape costs\n")
    print(f"Command: `python {' '.join(sys.argv)}`; weights are random.\n")
    print(machine_line())
    for length in LENGTHS:
        items = [random_texts(1, length, VOCABULARY, seed) for seed in range(ITEMS)]
        works = {name: work_of(run, items) for name, run in runs.items()}
        timed = time_together(works, ITEMS, arguments.seconds / len(LENGTHS))
        print(f"## {length} tokens, one text at a time, {len(timed[BASE].rounds)} rounds\n")
        print(f"| shape | encoder weights, millions | p50 µs | against {BASE}, int8 |")
        print("|---|--:|--:|--:|")
        for name, timings in timed.items():
            weights = SHAPES[name.partition(":")[0]].encoder_weights / 1e6
            speedup = speedup_cell(timed[BASE], timings)
            print(f"| {name} | {weights:.1f} | {1e6 * timings.p50:,.0f} | {speedup} |")
        print()


def runs_of(files: Sequence[SpeedFile]) -> dict[str, Run]:
    """Open the int8 file of every shape, and all runtimes of `OPENVINO_SHAPES`."""
    runs: dict[str, Run] = {}
    for file in files:
        if file.variant == "int8":
            runs[file.student] = file.open()
        elif file.student in OPENVINO_SHAPES:
            if file.variant == "portable":
                runs[f"{file.student}: portable"] = file.open()
            openvino_run = open_in_openvino(file.path)
            if openvino_run:
                runs[f"{file.student}: {file.variant}, OpenVINO"] = openvino_run
    return runs


def open_in_openvino(path: Path) -> Run | None:
    """Open a graph on one thread of OpenVINO's CPU; None if OpenVINO is not installed."""
    try:
        import openvino
    except ImportError:
        return None
    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}
    compiled = core.compile_model(core.read_model(path), "CPU", settings)
    names = [item.get_any_name() for item in compiled.inputs]
    request = compiled.create_infer_request()

    def run(inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        request.infer({name: inputs[name] for name in names}, share_inputs=True)
        return np.asarray(request.get_output_tensor(0).data)

    return run


if __name__ == "__main__":
    study()
