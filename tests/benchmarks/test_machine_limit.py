"""Peaks, counts of operations against shapes of the ONNX graph, and the profile."""

from __future__ import annotations

import math
from collections.abc import Mapping

import factories
import numpy as np
import onnx
import onnxruntime
import pytest
from kdedge.benchmarks.bench import bench_bundle
from kdedge.benchmarks.examples import Examples
from kdedge.benchmarks.graph_cost import Cost, node_cost, total_cost
from kdedge.benchmarks.machine_peaks import (
    FLOAT,
    INT8,
    INT32,
    UINT8,
    Peaks,
    copy_speed,
    product_model,
)
from kdedge.benchmarks.onnx_profile import NodeRun, profile_runs
from kdedge.benchmarks.options import Options
from kdedge.benchmarks.page import html_page
from kdedge.benchmarks.scenarios.machine_tables import machine_tables, multiples, operator_shares
from kdedge.benchmarks.scenarios.series import ScenarioResults, Series
from onnx import shape_inference

from kdedge.runtime import Bundle, Classifier

CPU = "CPUExecutionProvider"


@pytest.mark.parametrize(
    "operator, types, content",
    [
        ("MatMul", (FLOAT, FLOAT, FLOAT), np.float32),
        ("MatMulInteger", (UINT8, INT8, INT32), np.int8),
    ],
)
def test_the_model_of_a_product_is_valid_and_right(
    operator: str, types: tuple[int, int, int], content: type
) -> None:
    generator = np.random.default_rng(0)
    weights = generator.integers(-5, 5, (8, 8)).astype(content)
    graph = product_model(operator, 8, types, weights.tobytes())
    onnx.checker.check_model(onnx.load_from_string(graph), full_check=True)
    session = onnxruntime.InferenceSession(graph, providers=[CPU])
    left = generator.integers(0, 5, (8, 8))
    given = left.astype(np.float32 if types[0] == FLOAT else np.uint8)
    assert (session.run(None, {"a": given})[0] == left @ weights).all()


def test_a_copy_has_a_speed() -> None:
    assert copy_speed(1 << 16) > 1e6
    assert math.isfinite(copy_speed(0))


# Counts


def test_costs_are_those_of_a_loop() -> None:
    """Count multiplications and additions one by one."""
    operations = weights = 0
    for _ in range(2 * 5):
        for _ in range(7):
            operations += 2 * 3
    for _ in range(7 * 3):
        weights += 1
    node = NodeRun("MatMul", 0.0, ((2, 5, 3), (3, 7)), ((2, 5, 7),))
    assert node_cost(node) == Cost(fp32=operations, bytes=4 * weights)
    packed = NodeRun("MatMulIntegerToFloat", 0.0, ((2, 5, 3), (1,)), ((2, 5, 7),))
    assert node_cost(packed) == Cost(int8=operations, bytes=weights)


def test_an_lstm_has_four_gates_in_each_direction() -> None:
    steps, batch, width, hidden, directions = 6, 2, 5, 3, 2
    operations = 0
    for _ in range(directions * steps * batch):
        for _ in range(4 * hidden):
            operations += 2 * width + 2 * hidden
    node = NodeRun("LSTM", 0.0, ((steps, batch, width),), ((steps, directions, batch, hidden),))
    weights = directions * 4 * hidden * (width + hidden)
    assert node_cost(node) == Cost(fp32=operations, bytes=4 * weights)
    last = NodeRun("DynamicQuantizeLSTM", 0.0, ((steps, batch, width),), ((2, batch, hidden),))
    assert node_cost(last) == Cost(int8=operations, bytes=weights)


def test_attention_multiplies_queries_keys_and_values() -> None:
    heads, size, queries, keys = 4, 8, 5, 6
    operations = 0
    for _ in range(heads * queries * keys):
        operations += 2 * size + 2 * size
    shapes = ((1, queries, heads * size), (1, keys, heads * size), (1, keys, heads * size))
    node = NodeRun("MultiHeadAttention", 0.0, shapes, ((1, queries, heads * size),))
    assert node_cost(node) == Cost(fp32=operations)
    scores = NodeRun("MatMul", 0.0, ((1, heads, 5, 8), (1, heads, 8, 6)), ((1, heads, 5, 6),))
    assert node_cost(scores) == Cost(fp32=operations // 2), "keys are no weights"


def test_other_operators_cost_nothing() -> None:
    assert node_cost(NodeRun("Gelu", 0.0, ((1, 5, 8),), ((1, 5, 8),))) == Cost()
    table = NodeRun("Gather", 0.0, ((100, 8), (1, 5)), ((1, 5, 8),))
    assert node_cost(table) == Cost(bytes=40)


def graph_operations(graph: bytes, encoded: Mapping[str, np.ndarray]) -> int:
    """Count 2 M K N of every product in the file, with the shapes that onnx infers."""
    model = onnx.load_from_string(graph)
    for given in model.graph.input:
        for axis, size in zip(
            given.type.tensor_type.shape.dim, encoded[given.name].shape, strict=True
        ):
            axis.dim_value = size
    inferred = shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {}
    for value in [*inferred.value_info, *inferred.input, *inferred.output]:
        shapes[value.name] = [axis.dim_value for axis in value.type.tensor_type.shape.dim]
    for tensor in inferred.initializer:
        shapes[tensor.name] = list(tensor.dims)
    total = 0
    for node in inferred.node:
        if node.op_type in ("MatMul", "Gemm"):
            depth = shapes[node.input[0]][-1]
            total += 2 * math.prod(shapes[node.output[0]]) * depth
        elif node.op_type == "LSTM":
            directions, gates, width = shapes[node.input[1]]
            steps, batch, _ = shapes[node.input[0]]
            total += 2 * steps * batch * directions * gates * (width + gates // 4)
    return total


def fp32_runs(kind: str) -> tuple[bytes, dict[str, np.ndarray], list[NodeRun]]:
    bundle = Bundle.open(factories.tiny_bundle(kind))
    graph = bundle.contents[bundle.manifest.precisions["fp32"]]
    encoded = Classifier.from_bundle(bundle, "fp32", threads=1).encode(["the film was good"])
    (nodes,) = profile_runs(graph, CPU, 1, [encoded])
    return graph, encoded, nodes


def test_the_operations_of_an_lstm_are_those_of_its_file() -> None:
    graph, encoded, nodes = fp32_runs("bilstm")
    assert total_cost(nodes).fp32 == graph_operations(graph, encoded) > 0
    assert total_cost(nodes).int8 == 0


def test_a_run_has_the_operators_of_the_graph() -> None:
    nodes = fp32_runs("bert")[2]
    operators = {node.operator for node in nodes}
    assert "LayerNormalization" in operators and operators & {"MatMul", "FusedMatMul", "Gemm"}
    assert all(node.seconds >= 0 for node in nodes)
    assert total_cost(nodes).fp32 > 0


def test_each_run_is_kept_apart() -> None:
    bundle = Bundle.open(factories.tiny_bundle())
    graph = bundle.contents[bundle.manifest.precisions["fp32"]]
    classifier = Classifier.from_bundle(bundle, "fp32", threads=1)
    texts = ["the film", "the film and the plot were good and bright"]
    runs = profile_runs(graph, CPU, 1, [classifier.encode([text]) for text in texts])
    short, long = [total_cost(nodes).fp32 for nodes in runs]
    assert len(runs[0]) == len(runs[1]) and short < long


def test_a_bound_is_the_slower_of_products_and_memory() -> None:
    peaks = Peaks(fp32=100.0, int8=400.0, memory=10.0)
    cost = Cost(fp32=50, int8=200, bytes=5)
    assert cost.bound(peaks, bandwidth=10.0) == pytest.approx(1.0)
    assert cost.bound(peaks, bandwidth=2.0) == pytest.approx(2.5)


# The tables


def test_tables_hold_medians_and_shares() -> None:
    key = "a onnx int8 cpu"
    generator = np.random.default_rng(1)
    time, bound = generator.uniform(1e-4, 2e-4, 9), generator.uniform(1e-5, 2e-5, 9)
    parts = [
        Series("machine", key, time, part="time"),
        Series("machine", key, bound, part="bound"),
        *[Series("machine", key, np.full(9, 2e6), part=p, unit="1") for p in ("fp32", "int8")],
        Series("machine", key, np.full(9, 3e6), part="bytes", unit="1"),
        Series("machine", key, np.full(9, 3e-5), part="operator MatMul"),
        Series("machine", key, np.full(9, 1e-5), part="operator Add"),
    ]
    peaks = [Series("machine", "", np.array([1e11]), part=p) for p in ("fp32", "int8", "memory")]
    limits, operators = machine_tables(ScenarioResults((*peaks, *parts)), {key: "A"})
    expected = sorted(t / b for t, b in zip(time, bound, strict=True))[4]
    assert multiples(parts[0], parts[1]) == pytest.approx(time / bound)
    assert limits.rows[0][0] == "A" and limits.rows[0][-1] == f"{expected:.1f}x"
    assert operators.rows[0][1:3] == ("MatMul 75 %", "Add 25 %")
    assert operator_shares(parts) == [("MatMul", 0.75), ("Add", pytest.approx(0.25))]
    assert "100 billion" in limits.explain


@pytest.mark.slow
def test_a_bundle_is_slower_than_its_bound() -> None:
    texts, labels = factories.sentences(20, seed=3)
    options = Options(seconds=0.2, batch=4, scenarios=("single", "machine"))
    report = bench_bundle(
        [factories.tiny_bundle()], options=options, examples=Examples(list(texts), labels=labels)
    )
    parts = {}
    for each in report.scenarios.of("machine"):
        parts[each.subject, each.part] = each
    for row in report.rows:
        assert (multiples(parts[row.key, "time"], parts[row.key, "bound"]) > 1).all()
    page = html_page(report)
    assert "How far from the machine" in page and "Operators that take the time" in page
