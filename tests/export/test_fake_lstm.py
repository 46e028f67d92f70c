"""A fake-quantized BiLSTM against its int8 file in ONNX Runtime: equal logits in any batch."""

from __future__ import annotations

from typing import Any

import factories
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from kdedge.export import int8_parity as integers
from kdedge.export.calibrate import calibrate, sensitivity, unpadded_batches
from kdedge.export.fake_lstm import FakeQuantLstm
from kdedge.export.fake_model import fake_quantized, quantized_layers
from kdedge.export.graph_writer import GraphWriter, Weights
from kdedge.export.guided_replay import GuidedReplay, InstrumentedSession, rounded_states
from kdedge.export.int8_writer import Int8Writer, to_int8, write_student
from kdedge.export.lstm_steps import state_scale
from kdedge.export.scheme import QuantScheme
from transformers import PreTrainedModel

from kdedge.errors import CheckFailed
from kdedge.nn.batching import PaddingCollator
from kdedge.nn.tokenization import encode
from kdedge.students.bilstm import BiLstmForSequenceClassification, BiLstmModelConfig
from kdedge.students.lstm_states import token_states

SPEC = factories.single_task().spec

STATIC = QuantScheme(activations="static")

Text = dict[str, np.ndarray]


def bilstm(pair: bool, spread: float = 0.5, **sizes: int) -> BiLstmForSequenceClassification:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BiLstmForSequenceClassification(
            BiLstmModelConfig(
                **{
                    "vocab_size": 200,
                    "embedding_dim": 12,
                    "hidden_size": 7,
                    "head_size": 9,
                    "num_labels": 3,
                }
                | sizes,
                pair=pair,
            )
        )
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=spread)
    return model.eval()


def read(pair: bool, count: int = 48) -> list[dict[str, torch.Tensor]]:
    texts = factories.sentences(count, 5)[0]
    return unpadded_batches(
        PaddingCollator(0),
        encode(
            factories.tokenizer(), texts, factories.sentences(count, 6)[0] if pair else None, 48
        ),
    )


def quantized(
    model: PreTrainedModel, batches: list[dict[str, torch.Tensor]], scheme: QuantScheme = STATIC
) -> PreTrainedModel:
    made = fake_quantized(model, scheme).eval()
    calibrate(made, model, batches)
    return made


def texts_of(batches: list[dict[str, torch.Tensor]], pair: bool) -> list[Text]:
    names = ["input_ids", "attention_mask", "token_type_ids"][: 3 if pair else 2]
    return [
        {name: batch[name][i : i + 1].numpy() for name in names}
        for batch in batches
        for i in range(len(batch["input_ids"]))
    ]


def session(graph: onnx.ModelProto) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )


@pytest.mark.parametrize("pair, cross_attention", [(False, False), (True, False), (True, True)])
def test_the_file_does_the_integer_arithmetic_of_torch(pair: bool, cross_attention: bool) -> None:
    batches = read(pair)
    model = quantized(bilstm(pair, cross_attention=cross_attention), batches)
    figures = integers.check_integers(
        model,
        to_int8(model).SerializeToString(),
        texts_of(batches, pair),
        SPEC,
    )
    coverage = figures.coverage
    assert coverage.integer_products == (3 if cross_attention else 2)
    assert coverage.float_attention_products == (3 if cross_attention else 0)
    assert coverage.integer_lstms == 1
    assert coverage.float_products == coverage.float_lstms == 0
    assert figures.replay.unguided.agreement == 1.0 and figures.replay.ties <= 2


def test_every_state_of_every_step_is_compared() -> None:
    batches = read(pair=True, count=4)
    model, text = quantized(bilstm(pair=True), batches), texts_of(batches, pair=True)[0]
    file = InstrumentedSession(to_int8(model).SerializeToString(), onnxruntime.SessionOptions())
    replayed = GuidedReplay(model, file, file.run(text)).run(text)
    names = [error.name for error in replayed.errors]
    first, second = (int((text["token_type_ids"] == kind).sum()) for kind in (0, 1))
    assert [sum(name.startswith(f"lstm_states.{row}.") for name in names) for row in (0, 1)] == [
        first - 1,
        second - 1,
    ]


def logits_together_and_alone(
    model: BiLstmForSequenceClassification,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the logits of the int8 file for all texts in one batch, and for each text alone."""
    pair = model.config.pair
    batches = read(pair)
    opened = session(to_int8(quantized(model, batches)))
    texts = texts_of(batches, pair)
    longest = max(text["input_ids"].shape[1] for text in texts)
    padded = {
        name: np.concatenate(
            [np.pad(t[name], ((0, 0), (0, longest - t[name].shape[1]))) for t in texts]
        )
        for name in texts[0]
    }
    together = opened.run(["logits"], padded)[0]
    alone = np.concatenate([opened.run(["logits"], text)[0] for text in texts])
    assert np.ptp(alone) > 0.1
    return together, alone


@pytest.mark.parametrize("spread", [0.5, 6.0])
def test_a_text_has_the_same_logits_alone_and_in_a_batch(spread: float) -> None:
    """Also where cells grow as fast as cells can: the states stay within the anchored range."""
    assert np.array_equal(*logits_together_and_alone(bilstm(False, spread)))


def test_cross_attention_gives_a_pair_the_same_logits_alone_and_in_a_batch() -> None:
    """Up to the integers that a last bit can change: attention sums in float."""
    together, alone = logits_together_and_alone(bilstm(True, cross_attention=True))
    differences = np.abs(together - alone).max(1)
    assert np.mean(differences <= 1e-5) >= 0.95 and differences.max() < 0.02 * np.ptp(alone)


def test_no_unit_exceeds_the_anchors() -> None:
    batches = read(pair=False, count=8)
    graph = to_int8(quantized(bilstm(False, 6.0), batches))
    node = next(node for node in graph.graph.node if node.op_type == "DynamicQuantizeLSTM")
    node.output[0] = "states"
    graph.graph.output.append(
        onnx.helper.make_tensor_value_info("states", onnx.TensorProto.FLOAT, None)
    )
    for text in texts_of(batches, pair=False):
        states = session(graph).run(["states"], text)[0][:, :, 0]  # (T, 2, H + 2)
        anchors = np.tanh(np.arange(1, len(states) + 1))
        both = np.stack([states[:, 0], states[::-1, 1]])
        np.testing.assert_allclose(
            both[..., -2:], np.stack([anchors, -anchors], 1)[None].repeat(2, 0), atol=1e-6
        )
        assert (np.abs(both).max(2) <= both[..., -2]).all() and np.abs(both[..., :-2]).max() > 0.9


def test_a_disabled_layer_computes_in_float() -> None:
    model, batches = bilstm(False), read(False)
    made = quantized(model, batches)
    for _, layer in quantized_layers(made):
        layer.enabled = False
    with torch.no_grad():
        assert all(torch.equal(made(**batch).logits, model(**batch).logits) for batch in batches)


class FloatLstm(Int8Writer):
    """Writes the table and the LSTM in fp32."""

    def rows(self, ids: str, weights: Weights, prefix: str) -> str:
        return GraphWriter.rows(self, ids, weights, prefix)

    def recurrent(self, *inputs: Any, **settings: Any) -> str:
        return GraphWriter.recurrent(self, *inputs, **settings)


def test_another_weight_and_a_float_lstm_fail() -> None:
    batches = read(False)
    model = quantized(bilstm(False), batches)
    graph, texts = to_int8(model), texts_of(batches, False)
    weight = next(tensor for tensor in graph.graph.initializer if tensor.name == "lstm.r")
    weight.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(weight), "lstm.r"))
    with pytest.raises(CheckFailed, match="same results as fake-quantized torch"):
        integers.check_integers(model, graph.SerializeToString(), texts, SPEC)
    floating = write_student(model, FloatLstm).SerializeToString()
    with pytest.raises(CheckFailed, match="run in integers"):
        integers.check_integers(model, floating, texts, SPEC)


def test_gradients_reach_weights_of_both_directions_and_the_range() -> None:
    batches = read(False, count=8)
    model = quantized(bilstm(False), batches).train()
    sum(model(**batch).logits.square().sum() for batch in batches).backward()
    largest = {name: float(value.grad.abs().max()) for name, value in model.lstm.named_parameters()}
    assert len(largest) == 10
    assert all(size > 0 for name, size in largest.items() if not name.startswith("range"))
    assert model.embedding.weight.grad.abs().max() > 0 and isinstance(model.lstm, FakeQuantLstm)


def test_sensitivity_names_every_layer_of_a_bilstm() -> None:
    batches = read(False, count=8)
    changes = sensitivity(quantized(bilstm(False), batches), batches)
    assert changes.keys() == {"embedding", "lstm", "dense", "classifier"}
    assert min(changes.values()) > 0


def test_the_file_holds_each_weight_once_in_one_byte() -> None:
    model = bilstm(False, 0.2, vocab_size=4000, embedding_dim=64, hidden_size=40, head_size=50)
    batches = read(False, count=8)
    graph = to_int8(quantized(model, batches))
    floats = sum(
        int(np.prod(tensor.dims))
        for tensor in graph.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
    )
    assert floats < 2500 and graph.ByteSize() < 0.28 * 4 * sum(
        parameter.numel() for parameter in model.parameters()
    )


def test_states_are_rounded_with_the_scale_of_the_file() -> None:
    scale, zero = (float(part) for part in state_scale(1))
    bound, tie = float(torch.tanh(torch.tensor(1.0))), np.float32(11.5 * scale)
    states = np.zeros((2, 2, 1, 3), np.float32)
    states[0, 0, 0] = (
        tie,
        bound * (1 + 1e-6),
        -bound * (1 + 1e-6),
    )  # The anchors are a little wider, so the tie rounds down.
    states[1, 1, 0] = tie, bound * (1 - 1e-6), -bound * (1 - 1e-6)
    found = rounded_states(states[:, :, 0], 1, 2, 1)
    assert (found[:, 0, 0] - zero).tolist() == [11, 12]


@pytest.mark.parametrize("enabled", [False, True])
def test_padded_texts_give_the_states_of_packed_ones(enabled: bool) -> None:
    """A GPU reads them so: packing would make it wait for the lengths."""
    model = quantized(bilstm(pair=False), read(pair=False))
    layer, lengths = model.lstm, torch.tensor([1, 9, 3, 4, 9])
    assert isinstance(layer, FakeQuantLstm)
    layer.enabled = enabled
    vectors = model.embedding.weight[:45].detach().view(5, 9, -1).clone().requires_grad_()
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        vectors, lengths, batch_first=True, enforce_sorted=False
    )
    state = layer(packed)[1][0]
    expected = torch.cat([state[0], state[1]], dim=1)
    found = layer.padded_final_states(vectors, lengths)
    torch.testing.assert_close(found, expected)
    assert_same_gradients(layer, vectors, found, expected)


@pytest.mark.parametrize("enabled", [False, True])
def test_padded_texts_give_the_token_states_of_packed_ones(enabled: bool) -> None:
    model = quantized(bilstm(pair=False), read(pair=False))
    layer, lengths = model.lstm, torch.tensor([1, 9, 3, 4, 9])
    layer.enabled = enabled
    vectors = model.embedding.weight[:45].detach().view(5, 9, -1).clone().requires_grad_()
    expected = token_states(layer, vectors, lengths)
    found = layer.padded_token_states(vectors, lengths)
    torch.testing.assert_close(found, expected)
    assert found[0, 1:].abs().max() == 0 and found[0, 0].abs().max() > 0
    assert_same_gradients(layer, vectors, found, expected)


def assert_same_gradients(
    layer: FakeQuantLstm, vectors: torch.Tensor, found: torch.Tensor, expected: torch.Tensor
) -> None:
    shares = torch.linspace(-1, 1, found.numel()).view_as(found)
    inputs = [vectors, layer.weight_ih_l0, layer.weight_hh_l0_reverse, layer.bias_hh_l0]
    for ours, theirs in zip(
        torch.autograd.grad((found * shares).sum(), inputs),
        torch.autograd.grad((expected * shares).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_padded_texts_show_the_values_of_packed_ones_to_calibration() -> None:
    layer = FakeQuantLstm(torch.nn.LSTM(4, 3, batch_first=True, bidirectional=True), STATIC)
    layer.enabled = False
    vectors, lengths = torch.arange(24.0).view(2, 3, 4), torch.tensor([1, 3])
    layer.observed = observed = []
    layer.padded_final_states(vectors, lengths)
    assert sorted(observed[0].tolist()) == [*range(4), *range(12, 24)]
