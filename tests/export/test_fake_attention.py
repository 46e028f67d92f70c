"""Attention with integer products: its arithmetic, its file, and the effect of padding."""

from __future__ import annotations

from pathlib import Path

import factories
import numpy as np
import onnxruntime
import pytest
import torch
from factories import Batches, calibrated_bert, single_text_batches
from kdedge.export import int8_parity as integers
from kdedge.export.calibrate import calibrate, sensitivity
from kdedge.export.export import ExportOptions, export_run
from kdedge.export.fake_attention import FakeQuantAttention
from kdedge.export.fake_model import fake_quantized, quantized_layers, range_owners
from kdedge.export.fake_quant import observed_values
from kdedge.export.int8_writer import to_int8
from kdedge.export.portable import to_portable
from kdedge.export.scheme import QuantScheme
from torch import nn

from kdedge.distillation.pipeline import distill
from kdedge.errors import CheckFailed, UsageError
from kdedge.recipe import BiLstmConfig
from kdedge.runtime import Bundle

SCHEME = QuantScheme(activations="static", attention="integers")


@pytest.fixture(scope="module")
def made() -> tuple[nn.Module, nn.Module, Batches]:
    """A small BERT, its calibrated form, and texts of equal length in batches."""
    return calibrated_bert(SCHEME)


def attention_of(model: nn.Module, layer: int = 0) -> FakeQuantAttention:
    return model.bert.encoder.layer[layer].attention.self.products


def answer(graph: bytes, text: dict[str, np.ndarray]) -> np.ndarray:
    return np.asarray(
        onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"]).run(
            ["logits"], text
        )[0]
    )


def test_calibration_sees_every_column() -> None:
    """One column in 64 is large: at equal steps of a fixed size it would be met always or never."""
    for length in (63, 64, 96, 128):
        x = torch.full((32, 12, length, length), 0.01)
        x[..., -1] = 0.9
        seen = observed_values(x)
        assert (
            len(seen) == 100_002
            and float(seen.max()) == pytest.approx(0.9)
            and float(seen.min()) == pytest.approx(0.01)
        )
        assert float((seen > 0.5).float().mean()) == pytest.approx(1 / length, rel=0.1)
    assert torch.equal(observed_values(torch.arange(6.0).reshape(2, 3)), torch.arange(6.0))


def test_both_products_by_hand() -> None:
    torch.manual_seed(0)
    attention = FakeQuantAttention(SCHEME)
    q, k, v = (torch.randn(1, 2, 5, 8) for _ in range(3))
    for name, x in (("query", q), ("key", k), ("value", v), ("shares", torch.tensor([0.0, 1.0]))):
        part = getattr(attention, name)
        with torch.no_grad():
            part.range.low.copy_(x.min())
            part.range.high.copy_(x.max())
    context, shares = attention(q, k, v, None, 8**-0.5)

    def uint8(x: np.ndarray, low: float, high: float) -> np.ndarray:
        scale = (high - low) / 255
        return (
            np.clip(np.rint(x / scale) + np.rint(-low / scale), 0, 255) - np.rint(-low / scale)
        ) * scale

    def int8(x: np.ndarray) -> np.ndarray:
        scale = np.abs(x).max() / 63
        return np.rint(x / scale) * scale

    scores = (
        uint8(q.numpy(), float(q.min()), float(q.max()))
        @ int8(k.numpy()).swapaxes(2, 3)
        / np.sqrt(8)
    )
    expected = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    assert np.allclose(shares.detach(), expected, atol=1e-6)
    assert np.allclose(context.detach(), uint8(expected, 0, 1) @ int8(v.numpy()), atol=1e-5)
    attention.enabled = False
    plain = nn.functional.scaled_dot_product_attention(q, k, v)
    assert torch.allclose(
        attention(q, k, v, None, 8**-0.5)[0], plain, atol=1e-6
    ) and not torch.allclose(context, plain, atol=1e-3)


def test_the_file_multiplies_the_integers_of_torch(
    made: tuple[nn.Module, nn.Module, Batches],
) -> None:
    _, quantized, batches = made
    figures = integers.check_integers(
        quantized,
        to_int8(quantized).SerializeToString(),
        single_text_batches(batches),
        "classification",
    )
    assert (figures.coverage.integer_products, figures.coverage.float_products) == (14, 0)
    assert figures.coverage.integer_attention_products == 4
    assert figures.coverage.float_attention_products == 0
    assert figures.replay.unguided.agreement == 1.0 and figures.replay.ties < 64


@pytest.mark.parametrize("part", ["query", "key", "shares", "value"])
def test_a_file_with_another_operand_scale_fails(
    made: tuple[nn.Module, nn.Module, Batches], part: str
) -> None:
    _, quantized, batches = made
    graph = to_int8(quantized)
    (scale,) = (
        tensor
        for tensor in graph.graph.initializer
        if tensor.name.endswith(f"layer.0.attention.self.products.{part}.input_scale")
    )
    scale.CopyFrom(
        integers.onnx.numpy_helper.from_array(
            integers.onnx.numpy_helper.to_array(scale) * np.float32(1.5), scale.name
        )
    )
    with pytest.raises(CheckFailed, match="same results as fake-quantized torch"):
        integers.check_integers(
            quantized, graph.SerializeToString(), single_text_batches(batches), "classification"
        )


def test_an_operand_that_the_file_does_not_round_fails(
    made: tuple[nn.Module, nn.Module, Batches],
) -> None:
    _, quantized, batches = made
    graph = to_int8(quantized)
    name = "bert.encoder.layer.1.attention.self.products.shares.input_scale"
    (scale,) = (tensor for tensor in graph.graph.initializer if tensor.name == name)
    scale.name = "renamed.input_scale"
    for node in graph.graph.node:
        for i, input_name in enumerate(node.input):
            if input_name == name:
                node.input[i] = scale.name
    with pytest.raises(CheckFailed, match=r"products\.shares"):
        integers.check_integers(
            quantized, graph.SerializeToString(), single_text_batches(batches), "classification"
        )


def test_a_file_with_float_attention_fails(
    made: tuple[nn.Module, nn.Module, Batches],
) -> None:
    model, quantized, batches = made
    graph = to_int8(fake_quantized(model, QuantScheme(activations="static"))).SerializeToString()
    with pytest.raises(CheckFailed, match="run in integers"):
        integers.check_integers(quantized, graph, single_text_batches(batches), "classification")


def test_one_attention_may_stay_in_float(made: tuple[nn.Module, nn.Module, Batches]) -> None:
    _, quantized, batches = made
    attention_of(quantized, 1).enabled = False
    try:
        graph = to_int8(quantized)
        figures = integers.check_integers(
            quantized, graph.SerializeToString(), single_text_batches(batches), "classification"
        )
    finally:
        attention_of(quantized, 1).enabled = True
    assert (
        figures.coverage.integer_attention_products
        == figures.coverage.float_attention_products
        == 2
    )
    assert figures.replay.unguided.agreement == 1.0
    assert [node.op_type for node in graph.graph.node].count("MultiHeadAttention") == 1


def test_padding_has_no_attention(made: tuple[nn.Module, nn.Module, Batches]) -> None:
    _, quantized, batches = made
    graph = to_int8(quantized).SerializeToString()
    texts = single_text_batches(batches)
    longest = max(text["input_ids"].shape[1] for text in texts) + 5
    padded = {
        name: np.concatenate(
            [np.pad(t[name], ((0, 0), (0, longest - t[name].shape[1]))) for t in texts]
        )
        for name in texts[0]
    }
    alone = np.concatenate([answer(graph, text) for text in texts])
    assert np.abs(answer(graph, padded) - alone).max() <= 1e-6
    with torch.inference_mode():
        padded_logits = quantized(
            **{name: torch.from_numpy(values) for name, values in padded.items()}
        ).logits.numpy()
    assert np.mean(np.abs(padded_logits - alone).max(1) <= 1e-5) > 0.9, "only ties may differ"


def test_the_portable_file_gives_the_same_logits(
    made: tuple[nn.Module, nn.Module, Batches],
) -> None:
    _, quantized, batches = made
    portable, int8 = to_portable(quantized), to_int8(quantized).SerializeToString()
    rounded = [node.input[1] for node in portable.graph.node if node.op_type == "QuantizeLinear"]
    assert sum(".attention.self.products." in name for name in rounded) == 8
    apart = [
        np.abs(answer(portable.SerializeToString(), text) - answer(int8, text)).max()
        for text in single_text_batches(batches)
    ]
    assert np.mean(np.array(apart) <= 1e-5) > 0.95


def test_values_beyond_the_range_are_clipped_in_every_file(
    made: tuple[nn.Module, nn.Module, Batches],
) -> None:
    model, _, batches = made
    narrow = fake_quantized(model, SCHEME).eval()
    calibrate(narrow, model, batches)
    with torch.no_grad():
        for name, owner in range_owners(narrow).items():
            if name.endswith((".products.key", ".products.value")):
                owner.range.low.mul_(0.2)
                owner.range.high.mul_(0.2)
    int8, portable = (write(narrow).SerializeToString() for write in (to_int8, to_portable))
    integers.check_integers(narrow, int8, single_text_batches(batches), "classification")
    apart = [
        np.abs(answer(portable, text) - answer(int8, text)).max()
        for text in single_text_batches(batches)
    ]
    assert np.mean(np.array(apart) <= 1e-5) > 0.95


def test_ranges_are_calibrated_saved_and_trained(
    made: tuple[nn.Module, nn.Module, Batches],
) -> None:
    model, quantized, batches = made
    name = "bert.encoder.layer.0.attention.self.products"
    owners = range_owners(quantized)
    assert {f"{name}.{part}" for part in ("query", "key", "shares", "value")} <= owners.keys()
    shares = owners[f"{name}.shares"].range
    assert shares.low.item() >= 0 and 0.1 < shares.high.item() <= 1
    changes = sensitivity(quantized, batches[:4])
    assert changes[name] > 0 and changes.keys() == dict(quantized_layers(quantized)).keys()
    again = fake_quantized(model, SCHEME).eval()
    again.load_state_dict(quantized.state_dict())
    with torch.inference_mode():
        assert torch.equal(again(**batches[0]).logits, quantized(**batches[0]).logits)
    again(**batches[0]).logits.square().sum().backward()
    ends = [p.grad for n, p in again.named_parameters() if n.startswith(name) and ".range." in n]
    assert len(ends) == 8 and sum(end is not None and bool(end != 0) for end in ends) >= 4


def test_the_float_model_keeps_its_attention(made: tuple[nn.Module, nn.Module, Batches]) -> None:
    model, quantized, batches = made
    assert model.config._attn_implementation != quantized.config._attn_implementation
    for _, layer in quantized_layers(quantized):
        layer.enabled = False
    try:
        with torch.inference_mode():
            assert torch.allclose(
                model(**batches[0]).logits, quantized(**batches[0]).logits, atol=1e-5
            )
    finally:
        for _, layer in quantized_layers(quantized):
            layer.enabled = True


def test_the_recipe_or_an_option_chooses_integer_attention(tmp_path: Path) -> None:
    student = factories.tinybert_config(quantize={"steps": 2, "checks": 1, "attention": "integers"})
    run = distill(
        factories.make_recipe(factories.write_data_and_teacher(tmp_path), student=student),
        tmp_path / "runs",
    )

    def exported(options: ExportOptions) -> tuple[str, int, str]:
        (folder,) = export_run(run, ["tinybert"], options=options)
        manifest = Bundle.open(folder).manifest
        return (
            manifest.scheme["attention"],
            manifest.parity["int8"]["integer_attention_products"],
            (folder / "README.md").read_text(),
        )

    attention, products, card = exported(ExportOptions())
    assert (attention, products) == (
        "integers",
        2,
    ) and "2 products of attention run as integer kernels. In fp32: none" in card
    attention, products, card = exported(ExportOptions(attention="float"))
    assert (attention, products) == ("float", 0) and "In fp32: 2 products of attention" in card
    assert exported(ExportOptions(("fp32", "int8", "portable"), attention="integers"))[:2] == (
        "integers",
        2,
    )


def test_attention_is_chosen_for_static_int8_files_only() -> None:
    with pytest.raises(UsageError, match=r"(?s)rounds attention.*--scheme dynamic"):
        ExportOptions(scheme=QuantScheme(), attention="integers")
    with pytest.raises(UsageError, match=r"ExportOptions\(attention"):
        ExportOptions(scheme=SCHEME)


def test_integers_need_fixed_ranges() -> None:
    with pytest.raises(UsageError, match="fixed ranges"):
        QuantScheme(activations="dynamic", attention="integers")


def test_a_bilstm_has_no_attention_to_round() -> None:
    with pytest.raises(ValueError, match="attention"):
        BiLstmConfig.model_validate({"kind": "bilstm", "quantize": {"attention": "integers"}})
