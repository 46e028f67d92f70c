"""Run an ONNX file with ONNX Runtime's profiler: operators, their shapes and their times."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdedge.runtime.session import SLOW_FUSIONS, session_options

Shapes = tuple[tuple[int, ...], ...]

KERNEL = "_kernel_time"


@dataclass(frozen=True)
class NodeRun:
    """One run of one node.

    Attributes:
        operator: Such as `MatMul`.
        seconds: How long it took.
        inputs: Shapes of its inputs. A weight that ONNX Runtime has packed is not among them.
        outputs: Shapes of its outputs.
    """

    operator: str
    seconds: float
    inputs: Shapes
    outputs: Shapes


def profile_runs(
    graph: bytes, provider: str, threads: int, inputs: Sequence[Mapping[str, np.ndarray]]
) -> list[list[NodeRun]]:
    """Run a graph on each of some inputs; return the nodes of each run.

    Args:
        graph: The content of an ONNX file that `kdedge.runtime` has checked.
        provider: ONNX Runtime's name of an execution provider.
        threads: Threads of one run.
        inputs: Encoded texts. The first one runs twice, the first time to warm up.
    """
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        options = session_options(threads)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder, "profile"))
        session = onnxruntime.InferenceSession(
            graph, options, providers=[provider], disabled_optimizers=SLOW_FUSIONS
        )
        for encoded in [inputs[0], *inputs]:
            session.run(None, dict(encoded))
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    runs = _by_run(events)
    return runs[1:]


def _by_run(events: Sequence[Mapping[str, Any]]) -> list[list[NodeRun]]:
    """Sort the events of nodes into runs, which do not overlap."""
    starts = sorted(event["ts"] for event in events if event["name"] == "model_run")
    runs: list[list[NodeRun]] = [[] for _ in starts]
    for event in events:
        if event.get("cat") != "Node" or not event["name"].endswith(KERNEL):
            continue
        number = int(np.searchsorted(starts, event["ts"], side="right")) - 1
        runs[number].append(_node_run(event))
    return runs


def _node_run(event: Mapping[str, Any]) -> NodeRun:
    details = event["args"]
    return NodeRun(
        details["op_name"],
        event["dur"] / 1e6,
        _shapes(details["input_type_shape"]),
        _shapes(details["output_type_shape"]),
    )


def _shapes(listed: Sequence[Mapping[str, Sequence[int]]]) -> Shapes:
    """Return shapes from entries such as {"float": [1, 15, 128]}."""
    shapes = []
    for entry in listed:
        for shape in entry.values():
            shapes.append(tuple(shape))
    return tuple(shapes)
