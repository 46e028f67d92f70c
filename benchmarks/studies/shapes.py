"""What a BERT's shape costs in its int8 file: heads, activation, depth against width, and the same file in another runtime.

    python benchmarks/studies/shapes.py --seconds 240 > benchmarks/results/int8-shapes.md

Weights are random: time does not depend on them, and what a shape can learn is not told here. One thread, one text at a time, all
shapes of a length in one interleaved run. With OpenVINO installed (`uv pip install openvino`; it is no part of kdedge) the portable
file and the fp32 file run there too, on one thread; fp32 with OpenVINO's own choice of precision, which is fp32 on CPUs without bf16.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from int8_speed import ITEMS, bert, files_of, opened, ratio, texts, timed
from kdedge.benchmarks import machine
from kdedge.benchmarks.timing import interleave

LENGTHS = (8, 32, 128)
BASE = "TinyBERT 4x312, 12 heads"


@dataclass(frozen=True)
class Shape:
    layers: int = 4
    hidden: int = 312
    heads: int = 12
    intermediate: int = 1200
    activation: str = "gelu"

    @property
    def encoder(self) -> float:
        """Weights of its encoder, in millions."""
        return self.layers * (4 * self.hidden**2 + 2 * self.hidden * self.intermediate) / 1e6


SHAPES = {
    BASE: Shape(),
    "… 6 heads of 52": Shape(heads=6),
    "… 4 heads of 78": Shape(heads=4),
    "… ReLU": Shape(activation="relu"),
    "… 4 heads, ReLU": Shape(heads=4, activation="relu"),
    "4x320, 10 heads of 32": Shape(hidden=320, heads=10, intermediate=1280),
    "4x320, 5 heads of 64": Shape(hidden=320, heads=5, intermediate=1280),
    "3x384, 12 heads of 32": Shape(layers=3, hidden=384, intermediate=1536),
    "3x384, 6 heads of 64": Shape(layers=3, hidden=384, heads=6, intermediate=1536),
    "2x512, 8 heads of 64": Shape(layers=2, hidden=512, heads=8, intermediate=2048),
    "1x768, 12 heads of 64": Shape(layers=1, hidden=768, intermediate=3072),
    "2x128, 2 heads of 64": Shape(layers=2, hidden=128, heads=2, intermediate=512),
}
ELSEWHERE = (BASE, "3x384, 6 heads of 64")
"""Shapes that OpenVINO is asked about."""


def study() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--seconds", type=float, default=240.0, help="of timing, all lengths together")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"# int8: what a shape costs\n\nCommand: `python {' '.join(sys.argv)}`; weights are random.\n")
    print(machine.line())
    runs: dict[str, Callable[[Mapping[str, np.ndarray]], Any]] = {}
    for name, shape in SHAPES.items():
        model = bert((shape.layers, shape.hidden, shape.heads, shape.intermediate), 8000, shape.activation)
        files = files_of(model)
        runs[name] = opened(files["int8"])
        if name in ELSEWHERE:
            runs |= {f"{name}: portable": opened(files["portable"])}
            runs |= {f"{name}: {way}, OpenVINO": elsewhere for way in ("portable", "fp32") if (elsewhere := in_openvino(files[way]))}
    for length in LENGTHS:
        items = [texts(1, length, 5000, seed) for seed in range(ITEMS)]
        done = {name: parts[0] for name, parts in interleave({n: timed(run, items) for n, run in runs.items()}, ITEMS, seconds=given.seconds / 3).items()}
        print(f"## {length} tokens, one text at a time, {len(done[BASE].rounds)} rounds\n")
        print(f"| shape | encoder weights, millions | p50 µs | against {BASE}, int8 |\n|---|--:|--:|--:|")
        for name, timings in done.items():
            encoder = SHAPES[name.partition(":")[0]].encoder
            print(f"| {name} | {encoder:.1f} | {1e6 * timings.p50:,.0f} | {ratio(done[BASE], timings)} |")
        print()


def in_openvino(graph: onnx.ModelProto) -> Callable[[Mapping[str, np.ndarray]], Any] | None:
    """Runs a graph on one thread of OpenVINO's CPU; None where OpenVINO is not installed."""
    try:
        import openvino
    except ImportError:
        return None
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(graph.SerializeToString()), "CPU", {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"})
    names, request = [item.get_any_name() for item in compiled.inputs], compiled.create_infer_request()

    def run(given: Mapping[str, np.ndarray]) -> Any:
        request.infer({name: given[name] for name in names}, share_inputs=True)
        return request.get_output_tensor(0).data

    return run


if __name__ == "__main__":
    study()
