"""Fake-quant against the operators of ONNX Runtime, and a BERT against its int8 file."""

from __future__ import annotations

import factories
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from factories import calibrated_bert, single_text_batches
from kdedge.export import int8_parity as integers
from kdedge.export.calibrate import COVERAGES, calibrate, sensitivity
from kdedge.export.fake_model import fake_quantized, quantized_layers
from kdedge.export.fake_quant import (
    FakeQuantEmbedding,
    FakeQuantLinear,
    activation_scale,
    observed_values,
    to_integers,
    weight_scale,
)
from kdedge.export.graph_writer import GraphWriter, Weights
from kdedge.export.int8_writer import Int8Writer, to_int8, write_student
from kdedge.export.scheme import QuantScheme
from onnx import TensorProto, helper

from kdedge.errors import CheckFailed, UsageError

SPEC = factories.single_task().spec

STATIC = QuantScheme(activations="static")


def run(nodes: list[onnx.NodeProto], inputs: dict[str, np.ndarray]) -> np.ndarray:
    """The last output of nodes, as ONNX Runtime computes it."""
    last = nodes[-1].output[0]
    kinds = {
        np.dtype("float32"): TensorProto.FLOAT,
        np.dtype("uint8"): TensorProto.UINT8,
        np.dtype("int8"): TensorProto.INT8,
    }
    values = [
        helper.make_tensor_value_info(name, kinds[value.dtype], list(value.shape))
        for name, value in inputs.items()
    ]
    kind = TensorProto.UINT8 if nodes[-1].op_type == "QuantizeLinear" else TensorProto.FLOAT
    graph = helper.make_graph(
        nodes, "test", values, [helper.make_tensor_value_info(last, kind, None)]
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)],
        ir_version=8,
    )
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run([last], inputs)[0])


@pytest.mark.parametrize(
    ("low", "high"), [(-1.0, 3.0), (0.5, 3.0), (-0.17, 8.0), (-2.0, -1.0), (0.0, 0.0)]
)
def test_integers_equal_those_of_quantize_linear(low: float, high: float) -> None:
    random = np.random.default_rng(0)
    scale, zero = activation_scale(torch.tensor(low), torch.tensor(high))
    x = random.uniform(low - 1, high + 1, (64, 33)).astype(np.float32)
    x[0] = (np.arange(33) - float(zero) + 0.5) * float(scale)  # ties
    found = to_integers(torch.from_numpy(x), scale, zero, 0, 255).numpy()
    expected = run(
        [helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["y"])],
        {"x": x, "scale": scale.numpy().astype(np.float32), "zero": zero.numpy().astype(np.uint8)},
    )
    assert np.array_equal(found, expected.astype(np.float32))


@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (-0.17, 8.0), (-2.0, 0.0), (-1e-3, 7e4)])
def test_numbers_equal_those_of_dequantize_linear(low: float, high: float) -> None:
    scale, zero = activation_scale(torch.tensor(low), torch.tensor(high))
    whole = np.arange(256, dtype=np.uint8)
    found = (torch.from_numpy(whole.astype(np.float32)) - zero) * scale
    node = helper.make_node("DequantizeLinear", ["x", "scale", "zero"], ["y"])
    assert np.array_equal(
        found.numpy(),
        run([node], {"x": whole, "scale": scale.numpy(), "zero": zero.numpy().astype(np.uint8)}),
    )


def test_zero_is_exact_in_every_range() -> None:
    for low, high in ((-1.0, 3.0), (0.3, 0.9), (-5.0, -4.0)):
        scale, zero = activation_scale(torch.tensor(low), torch.tensor(high))
        assert float(to_integers(torch.tensor(0.0), scale, zero, 0, 255) - zero) == 0.0


@pytest.mark.parametrize("bits", [7, 8])
def test_a_product_equals_matmul_integer_to_float(bits: int) -> None:
    torch.manual_seed(0)
    layer = FakeQuantLinear(
        torch.nn.Linear(96, 40), QuantScheme(weight_bits=bits, activations="static")
    ).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        layer.range.low.fill_(-1.5 if bits == 7 else -6.0)
        layer.range.high.fill_(2.5 if bits == 7 else 10.0)
    # With 8 bits the 16-bit sums of a CPU without VNNI overflow unless activations are small.
    x = torch.randn(8, 96) if bits == 7 else torch.rand(8, 96) * 2 - 1
    with torch.inference_mode():
        found = layer(x).numpy()
        scale, zero = layer.range()
        weight, scales = layer.integer_weight()
        assert int(weight.abs().max()) == 2 ** (bits - 1) - 1
    names = ["x", "scale", "zero", "w", "w_scale", "bias"]
    values = [
        x.numpy(),
        scale.numpy(),
        zero.numpy().astype(np.uint8),
        weight.numpy().astype(np.int8).T.copy(),
        scales.numpy()[:, 0],
        layer.bias.detach().numpy(),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node(
            "MatMulIntegerToFloat",
            ["q", "w", "scale", "w_scale", "zero", "", "bias"],
            ["y"],
            domain="com.microsoft",
        ),
    ]
    np.testing.assert_allclose(
        found, run(nodes, dict(zip(names, values, strict=True))), rtol=0, atol=2e-6
    )


def test_a_row_of_zeros_has_a_scale() -> None:
    assert weight_scale(torch.tensor([[0.0, 0.0], [1.0, -2.0]]), 63).flatten().tolist() == [
        1.0,
        pytest.approx(2 / 63),
    ]
    assert weight_scale(torch.tensor([[1e-45, 0.0]]), 63).tolist() == [[1.0]], (
        "a scale of 0 would make integers of nothing"
    )


def test_gradients_pass_inside_the_range_and_move_its_ends_outside() -> None:
    layer = FakeQuantLinear(torch.nn.Linear(3, 1), STATIC).train()
    with torch.no_grad():
        layer.range.low.fill_(-1.0)
        layer.range.high.fill_(1.0)
    x = torch.tensor([[0.5, 7.0, -7.0]], requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None and x.grad[0, 0] != 0 and x.grad[0, 1:].abs().max() == 0
    assert layer.range.low.grad is not None and layer.range.low.grad != 0
    assert layer.range.high.grad is not None and layer.range.high.grad != 0


def test_query_key_and_value_round_their_input_once() -> None:
    model = fake_quantized(factories.bert(), STATIC)
    ranges = [name for name in model.state_dict() if name.endswith("range.low")]
    assert (
        len(ranges) == 2 * 4 + 2
    )  # per layer: attention's input, its output, two feed-forward inputs; pooler and head
    attention = model.bert.encoder.layer[0].attention.self
    assert attention.query.input_range is attention.key.input_range is attention.value.input_range


@pytest.fixture(scope="module")
def tuned() -> tuple[torch.nn.Module, torch.nn.Module, list[dict[str, torch.Tensor]]]:
    """A small BERT, its calibrated fake-quantized form, and texts of equal length in batches."""
    return calibrated_bert(STATIC)


def test_no_batch_of_calibration_is_padded(tuned: tuple) -> None:
    assert (
        all(bool(batch["attention_mask"].all()) for batch in tuned[2])
        and sum(len(b["input_ids"]) for b in tuned[2]) == 64
    )


def test_the_float_model_is_left_as_it_was(tuned: tuple) -> None:
    model, quantized, _ = tuned
    assert not any(
        isinstance(module, FakeQuantLinear | FakeQuantEmbedding) for module in model.modules()
    )
    assert quantized.state_dict().keys() > model.state_dict().keys()


def test_the_int8_file_gives_the_results_of_fake_quantized_torch(tuned: tuple) -> None:
    _, quantized, batches = tuned
    figures = integers.check_integers(
        quantized,
        to_int8(quantized).SerializeToString(),
        single_text_batches(batches),
        SPEC,
    )
    assert (figures.coverage.integer_products, figures.coverage.float_products) == (14, 0)
    assert figures.replay.unguided.agreement == 1.0 and figures.replay.ties < 64


def test_a_file_with_another_weight_fails(tuned: tuple) -> None:
    _, quantized, batches = tuned
    graph = to_int8(quantized)
    weight = next(
        t for t in graph.graph.initializer if t.name.endswith("layer.0.intermediate.dense.weight")
    )
    changed = onnx.numpy_helper.to_array(weight).copy()
    changed[:, 0] = -changed[:, 0]
    weight.CopyFrom(onnx.numpy_helper.from_array(changed, weight.name))
    with pytest.raises(CheckFailed, match="same results as fake-quantized torch"):
        integers.check_integers(
            quantized,
            graph.SerializeToString(),
            single_text_batches(batches),
            SPEC,
        )


@pytest.fixture(scope="module")
def deep() -> tuple[torch.nn.Module, list[dict[str, np.ndarray]]]:
    """Return a student of four layers and long texts: nearly all of them have a rounding tie."""
    torch.manual_seed(1)
    model = factories.bert(
        layers=4,
        hidden=312,
        heads=12,
        vocabulary=400,
        initializer_range=0.06,
        max_position_embeddings=128,
    ).eval()
    ids = torch.randint(5, 400, (6, 128))
    batch = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "token_type_ids": torch.zeros_like(ids),
    }
    quantized = fake_quantized(model, STATIC).eval()
    calibrate(quantized, model, [batch], coverages=(1.0,))
    return quantized, single_text_batches([batch])


def test_texts_with_rounding_ties_pass_and_are_counted(deep: tuple) -> None:
    figures = integers.check_integers(deep[0], to_int8(deep[0]).SerializeToString(), deep[1], SPEC)
    assert figures.replay.ties >= 3, "else this tests nothing"
    assert figures.replay.same_integers <= 1e-5 and figures.replay.largest_error.distance <= 1e-3


@pytest.mark.parametrize(
    "name",
    [
        "classifier.scales",
        "bert.encoder.layer.3.output.dense.scales",
        "bert.pooler.dense.input_scale",
        "classifier.bias",
    ],
)
def test_rounding_ties_do_not_hide_a_wrong_file(deep: tuple, name: str) -> None:
    graph = to_int8(deep[0])
    (tensor,) = (weight for weight in graph.graph.initializer if weight.name == name)
    values = onnx.numpy_helper.to_array(tensor)
    tensor.CopyFrom(
        onnx.numpy_helper.from_array(
            values + np.float32(0.02) if name.endswith("bias") else values * np.float32(1.3), name
        )
    )
    with pytest.raises(CheckFailed, match="same results as fake-quantized torch"):
        integers.check_integers(deep[0], graph.SerializeToString(), deep[1], SPEC)


def test_a_float_product_in_the_file_fails(tuned: tuple) -> None:
    _, quantized, batches = tuned
    name = "bert.encoder.layer.0.intermediate.dense"

    class OneFloatProduct(Int8Writer):
        def linear(self, x: str, weights: Weights, prefix: str) -> str:
            writer = GraphWriter if prefix == name else Int8Writer
            return writer.linear(self, x, weights, prefix)

    graph = write_student(quantized, OneFloatProduct).SerializeToString()
    assert integers.integer_coverage(graph).float_products == 1
    with pytest.raises(CheckFailed, match="run in integers"):
        integers.check_integers(quantized, graph, single_text_batches(batches), SPEC)


def test_a_table_of_floats_in_the_file_fails(tuned: tuple) -> None:
    _, quantized, batches = tuned
    table = quantized.bert.embeddings.word_embeddings

    class FloatTable(Int8Writer):
        def rows(self, ids: str, weights: Weights, prefix: str) -> str:
            return GraphWriter.rows(self, ids, weights, prefix)

    graph = write_student(quantized, FloatTable).SerializeToString()
    coverage = integers.integer_coverage(graph)
    assert coverage.float_matrix_bytes == 4 * (table.weight.numel() + 2 * 32)
    with pytest.raises(CheckFailed, match="stored in integers"):
        integers.check_integers(quantized, graph, single_text_batches(batches), SPEC)


def test_a_text_has_the_same_logits_alone_and_padded(tuned: tuple) -> None:
    _, quantized, batches = tuned
    session = onnxruntime.InferenceSession(
        to_int8(quantized).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    texts = single_text_batches(batches)
    longest = max(text["input_ids"].shape[1] for text in texts)
    padded = {
        name: np.concatenate(
            [np.pad(t[name], ((0, 0), (0, longest - t[name].shape[1]))) for t in texts]
        )
        for name in texts[0]
    }
    together = session.run(["logits"], padded)[0]
    alone = np.concatenate([session.run(["logits"], text)[0] for text in texts])
    assert np.abs(together - alone).max() <= 1e-6


def test_calibration_sees_every_column() -> None:
    """One column in 64 is large: equal steps of a fixed size would always or never meet it."""
    for length in (63, 64, 96, 128):
        x = torch.full((32, 12, length, length), 0.01)
        x[..., -1] = 0.9
        seen = observed_values(x)
        assert len(seen) == 100_002
        assert float(seen.max()) == pytest.approx(0.9)
        assert float(seen.min()) == pytest.approx(0.01)
        assert float((seen > 0.5).float().mean()) == pytest.approx(1 / length, rel=0.1)
    assert torch.equal(observed_values(torch.arange(6.0).reshape(2, 3)), torch.arange(6.0))


def test_ranges_cover_the_share_that_is_asked_for(tuned: tuple) -> None:
    model, quantized, batches = tuned
    ends = {}
    for coverages in ((1.0,), (0.9999,), COVERAGES):
        made = fake_quantized(model, STATIC).eval()
        share = calibrate(made, model, batches, coverages)
        assert share in coverages
        ends[coverages] = {
            name: value.item() for name, value in made.state_dict().items() if ".range." in name
        }
    for name, end in ends[1.0,].items():
        assert abs(ends[0.9999,][name]) <= abs(end)
    assert ends[1.0,] != ends[0.9999,]
    assert ends[COVERAGES] == {name: quantized.state_dict()[name].item() for name in ends[1.0,]}


def test_sensitivity_names_every_layer_and_leaves_the_model_as_it_was(tuned: tuple) -> None:
    _, quantized, batches = tuned
    changes = sensitivity(quantized, batches[:4])
    assert changes.keys() == dict(quantized_layers(quantized)).keys()
    assert max(changes.values()) > 0 and all(
        layer.enabled for _, layer in quantized_layers(quantized)
    )


def test_static_weights_have_one_scale_per_channel() -> None:
    with pytest.raises(UsageError, match="no such quantization scheme"):
        QuantScheme("per_tensor", 7, "static")
