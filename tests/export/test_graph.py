"""Graphs against their torch models, for many batch sizes, lengths and paddings."""

from __future__ import annotations

from collections.abc import Mapping

import factories
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from kdedge.export.dynamic_int8 import quantize
from kdedge.export.graph import to_onnx
from kdedge.export.scheme import QuantScheme
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from kdedge.errors import CheckFailed, MachineError
from kdedge.students.bilstm import BiLstmForSequenceClassification, BiLstmModelConfig

SHAPES = [(1, 1), (1, 2), (1, 3), (2, 5), (3, 17), (8, 33), (32, 12), (4, 64)]
VOCABULARY = 200


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def batch(rows: int, length: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Random tokens of random lengths, the longest filling the batch, in two segments."""
    random = np.random.default_rng([seed, rows, length])
    lengths = random.integers(1, length + 1, rows)
    lengths[0] = length
    mask = (np.arange(length) < lengths[:, None]).astype(np.int64)
    types = (np.arange(length) >= random.integers(0, lengths + 1)[:, None]).astype(np.int64) * mask
    return {
        "input_ids": random.integers(4, VOCABULARY, (rows, length)) * mask,
        "attention_mask": mask,
        "token_type_ids": types,
    }


def only(values: Mapping[str, np.ndarray], names: list[str]) -> dict[str, np.ndarray]:
    return {name: values[name] for name in names}


def assert_same_logits(
    model: PreTrainedModel,
    graph: onnx.ModelProto,
    shapes: list[tuple[int, int]] = SHAPES,
    within: float = 1e-5,
) -> None:
    names, opened, seen = [item.name for item in graph.graph.input], session(graph), []
    for rows, length in shapes:
        inputs = only(batch(rows, length), names)
        with torch.no_grad():
            expected = model(
                **{name: torch.from_numpy(values) for name, values in inputs.items()}
            ).logits.numpy()
        answers = opened.run(["logits"], inputs)[0]
        assert answers.shape == expected.shape and np.abs(answers - expected).max() <= within, (
            rows,
            length,
        )
        seen.append(expected)
    assert np.ptp(np.concatenate(seen), axis=0).min() > 100 * within, (
        "answers must differ for this to show anything"
    )


PAIRS = [(False, False), (True, False), (True, True)]
"""Whether a BiLSTM reads pairs, and whether it compares them by cross-attention."""


def bilstm(pair: bool, **settings: int) -> BiLstmForSequenceClassification:
    torch.manual_seed(1)
    sizes = {
        "vocab_size": VOCABULARY,
        "embedding_dim": 12,
        "hidden_size": 7,
        "head_size": 9,
        "num_labels": 3,
    } | settings
    return BiLstmForSequenceClassification(BiLstmModelConfig(pair=pair, **sizes)).eval()


@pytest.mark.parametrize(
    "layers, heads, activation, outputs",
    [
        (1, 1, "gelu", 2),
        (2, 4, "gelu_new", 3),
        (3, 2, "relu", 1),
        (2, 3, "gelu_pytorch_tanh", 5),
        (1, 2, "gelu_fast", 2),
        (1, 2, "silu", 2),
        (1, 2, "tanh", 2),
    ],
)
def test_bert_at_every_depth_and_activation(
    layers: int, heads: int, activation: str, outputs: int
) -> None:
    torch.manual_seed(0)
    model = factories.bert(
        layers=layers, heads=heads, outputs=outputs, hidden_act=activation, initializer_range=0.2
    ).eval()
    for parameter in model.parameters():  # biases and norms must not keep their zeros and ones
        torch.nn.init.normal_(parameter, parameter.mean().item(), 0.2)
    assert_same_logits(model, to_onnx(model))


@pytest.mark.parametrize("pair, cross_attention", PAIRS)
def test_bilstm_at_every_length(pair: bool, cross_attention: bool) -> None:
    model = bilstm(pair, cross_attention=cross_attention)
    graph = to_onnx(model)
    assert [item.name for item in graph.graph.input] == [
        "input_ids",
        "attention_mask",
        "token_type_ids",
    ][: 3 if pair else 2]
    assert [node.op_type for node in graph.graph.node].count("LSTM") == 1
    assert_same_logits(model, graph, [(1, length) for length in range(1, 40)] + SHAPES, within=1e-6)


@pytest.mark.parametrize("pair, cross_attention", PAIRS)
def test_a_written_graph_ignores_padding(pair: bool, cross_attention: bool) -> None:
    lstm = bilstm(pair, cross_attention=cross_attention)
    for model in (lstm, factories.bert(initializer_range=0.3).eval()):
        graph = to_onnx(model)
        opened, inputs = (
            session(graph),
            only(batch(6, 20), [item.name for item in graph.graph.input]),
        )
        wider = {name: np.pad(values, ((0, 0), (0, 9))) for name, values in inputs.items()}
        wider["input_ids"][:, 20:] = 77  # The ids under the padding must not matter.
        assert np.abs(opened.run(None, wider)[0] - opened.run(None, inputs)[0]).max() <= 1e-6


def test_written_graphs_are_plain_onnx_in_one_file() -> None:
    for model in (factories.bert().eval(), bilstm(False), bilstm(True)):
        graph = to_onnx(model)
        assert [(item.domain, item.version) for item in graph.opset_import] == [("", 17)]
        assert {node.domain for node in graph.graph.node} == {""}
        assert all(
            tensor.data_location == onnx.TensorProto.DEFAULT for tensor in graph.graph.initializer
        )
        assert [axis.dim_param for axis in graph.graph.input[0].type.tensor_type.shape.dim] == [
            "batch",
            "sequence",
        ]


def test_the_last_layer_computes_for_the_first_token_alone() -> None:
    """Rows of the activation's input: T in the first layer, 1 in the last."""
    graph = to_onnx(factories.bert(layers=2).eval())
    erf = [node.input[0] for node in graph.graph.node if node.op_type == "Erf"]
    graph.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in erf)
    first, last = session(graph).run(erf, batch(3, 11))
    assert (first.shape[:2], last.shape[:2]) == ((3, 11), (3, 1))


@pytest.mark.slow
def test_a_traced_architecture_answers_alike_and_quantizes() -> None:
    torch.manual_seed(0)
    config = DistilBertConfig(
        vocab_size=VOCABULARY,
        dim=24,
        n_layers=1,
        n_heads=2,
        hidden_dim=32,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    model = DistilBertForSequenceClassification(config).eval()
    graph = to_onnx(model)
    assert_same_logits(model, graph)
    content = graph.SerializeToString()
    assert b"site-packages" not in content and b".py" not in content, (
        "the exporter's notes name folders of this machine"
    )
    assert len(content) < 1.5 * 4 * sum(parameter.numel() for parameter in model.parameters())
    small = quantize(graph, QuantScheme())
    assert "MatMulInteger" in {node.op_type for node in small.graph.node}
    session(small).run(["logits"], only(batch(2, 9), ["input_ids", "attention_mask"]))


def test_an_activation_that_cannot_be_written_is_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdedge.export.graph.trace", lambda model: model.config.hidden_act)
    assert to_onnx(factories.bert(layers=1, hidden_act="mish").eval()) == "mish"


def test_an_architecture_that_cannot_be_exported_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(MachineError, match="cannot export"):
        to_onnx(factories.bert(layers=1, hidden_act="mish").eval())


def test_a_model_in_training_mode_is_refused() -> None:
    with pytest.raises(CheckFailed, match="evaluation mode"):
        to_onnx(factories.bert().train())


def broad(kind: str) -> PreTrainedModel:
    """Wide enough that weights outweigh the names of nodes."""
    torch.manual_seed(0)
    if kind == "bert":
        config = BertConfig(
            vocab_size=VOCABULARY * 20,
            hidden_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=192,
            max_position_embeddings=64,
            initializer_range=0.15,
        )
        return BertForSequenceClassification(config).eval()
    return bilstm(
        kind == "pair", vocab_size=VOCABULARY * 20, embedding_dim=64, hidden_size=40, head_size=50
    )


@pytest.mark.parametrize("kind", ["bert", "single", "pair"])
def test_the_int8_file_is_a_quarter_and_holds_no_float_copy(kind: str) -> None:
    model = broad(kind)
    graph = to_onnx(model)
    before, small = graph.SerializeToString(), quantize(graph, QuantScheme())
    assert graph.SerializeToString() == before, "the given model is left as it is"
    assert small.ByteSize() < 0.29 * graph.ByteSize()
    floats = [
        tensor
        for tensor in small.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT and np.prod(tensor.dims) > 4000
    ]
    # Positions are read by Slice and stay as they are: 2.5 % of a 6-layer MiniLM's file.
    assert [tensor.name for tensor in floats] == (
        ["bert.embeddings.position_embeddings.weight"] if kind == "bert" else []
    )
    kinds = [node.op_type for node in small.graph.node]
    lstms = {"bert": 0, "single": 1, "pair": 2}[kind]
    assert kinds.count("LSTM") == 0 and kinds.count("DynamicQuantizeLSTM") == lstms
    inputs, names = batch(32, 30), [item.name for item in graph.graph.input]
    full, light = (
        session(model).run(["logits"], only(inputs, names))[0] for model in (graph, small)
    )
    assert np.abs(full - light).max() < 0.1 * np.ptp(full)


def test_seven_bit_weights_leave_room_for_cpus_without_vnni() -> None:
    def largest(scheme: QuantScheme) -> int:
        weights = [
            onnx.numpy_helper.to_array(t)
            for t in quantize(to_onnx(broad("bert")), scheme).graph.initializer
            if t.data_type == onnx.TensorProto.INT8
        ]
        return max(int(np.abs(w.astype(int)).max()) for w in weights if w.ndim == 2)

    assert largest(QuantScheme()) <= 64 < largest(QuantScheme(weight_bits=8))


@pytest.mark.slow
def test_a_traced_roberta_counts_positions_from_its_own_padding() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        config = RobertaConfig(
            vocab_size=120,
            hidden_size=24,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=40,
            type_vocab_size=1,
            pad_token_id=1,
            initializer_range=0.3,
            num_labels=3,
        )
        model = RobertaForSequenceClassification(config).eval()
    graph = to_onnx(model)
    assert [item.name for item in graph.graph.input] == ["input_ids", "attention_mask"]
    session, random, seen = (
        onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"]),
        np.random.default_rng(4),
        [],
    )
    for rows, length in ((1, 1), (1, 2), (3, 9), (8, 17), (2, 37)):
        lengths = random.integers(1, length + 1, rows)
        lengths[0] = length
        mask = (np.arange(length) < lengths[:, None]).astype(np.int64)
        inputs = {
            "input_ids": np.where(mask, random.integers(5, 120, (rows, length)), 1),
            "attention_mask": mask,
        }
        with torch.no_grad():
            expected = model(
                **{name: torch.from_numpy(values) for name, values in inputs.items()}
            ).logits.numpy()
        answers = session.run(["logits"], inputs)[0]
        assert (
            np.abs(answers - expected).max() <= 1e-5
            and (answers.argmax(1) == expected.argmax(1)).all()
        ), (rows, length)
        seen.append(expected)
    assert np.ptp(np.concatenate(seen), axis=0).min() > 1e-2, (
        "answers must differ for this to show anything"
    )
