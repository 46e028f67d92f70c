"""What a BERT's shape costs in its int8 file: heads, activation, depth against width, and the same file in another runtime.

    python export/studies/speed_files.py build/shapes --shapes
    python benchmarks/studies/shapes.py build/shapes --seconds 240 > benchmarks/results/int8-shapes.md

Weights are random: time does not depend on them, and what a shape can learn is not told here. One thread, one text at a time, all
shapes of a length in one interleaved run. With OpenVINO installed (`uv pip install openvino`; it is no part of kdedge) the portable
file and the fp32 file run there too, on one thread; fp32 with OpenVINO's own choice of precision, which is fp32 on CPUs without bf16.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from int8_speed import ITEMS, Made, files_in, ratio, texts, timed
from kdedge.benchmarks import machine

from kdedge.evaluation.timing import TimingPlan, interleave

LENGTHS = (8, 32, 128)
BASE = "TinyBERT 4x312, 12 heads"
ELSEWHERE = (BASE, "3x384, 6 heads of 64")
"""Shapes that OpenVINO is asked about."""


def study() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--seconds", type=float, default=240.0, help="of timing, all lengths together"
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"# int8: what a shape costs\n\nCommand: `python {' '.join(sys.argv)}`; weights are random.\n"
    )
    print(machine.line())
    runs: dict[str, Callable[[Mapping[str, np.ndarray]], Any]] = {}
    files = files_in(given.folder)
    for one in files:
        if one.way == "int8":
            runs[one.student] = one.opened()
        elif one.student in ELSEWHERE:
            runs |= {f"{one.student}: portable": one.opened()} if one.way == "portable" else {}
            runs |= (
                {f"{one.student}: {one.way}, OpenVINO": elsewhere}
                if (elsewhere := in_openvino(one.file))
                else {}
            )
    encoders = {one.student: encoder(one) for one in files}
    for length in LENGTHS:
        items = [texts(1, length, 5000, seed) for seed in range(ITEMS)]
        done = {
            name: parts[0]
            for name, parts in interleave(
                {n: timed(run, items) for n, run in runs.items()},
                ITEMS,
                TimingPlan(given.seconds / 3),
            ).items()
        }
        print(f"## {length} tokens, one text at a time, {len(done[BASE].rounds)} rounds\n")
        print(
            f"| shape | encoder weights, millions | p50 µs | against {BASE}, int8 |\n|---|--:|--:|--:|"
        )
        for name, timings in done.items():
            print(
                f"| {name} | {encoders[name.partition(':')[0]]:.1f} | {1e6 * timings.p50:,.0f} | {ratio(done[BASE], timings)} |"
            )
        print()


def encoder(made: Made) -> float:
    """Weights of a BERT's encoder, in millions."""
    layers, hidden, intermediate = (
        made.sizes[name] for name in ("layers", "hidden", "intermediate")
    )
    return float(layers * (4 * hidden**2 + 2 * hidden * intermediate) / 1e6)


def in_openvino(file: Path) -> Callable[[Mapping[str, np.ndarray]], Any] | None:
    """Runs a graph on one thread of OpenVINO's CPU; None where OpenVINO is not installed."""
    try:
        import openvino
    except ImportError:
        return None
    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(file), "CPU", {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}
    )
    names, request = (
        [item.get_any_name() for item in compiled.inputs],
        compiled.create_infer_request(),
    )

    def run(given: Mapping[str, np.ndarray]) -> Any:
        request.infer({name: given[name] for name in names}, share_inputs=True)
        return request.get_output_tensor(0).data

    return run


if __name__ == "__main__":
    study()
