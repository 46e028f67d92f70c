"""A BiLSTM as an ONNX graph with one LSTM node, and as a model that rounds as its int8 file does.

`sequence_lens` of the node excludes the padding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from kdedge.export.fake_lstm import FakeQuantLstm, FakeQuantTable
from kdedge.export.fake_quant import FakeQuantLinear
from kdedge.export.graph_writer import GraphWriter, Weights, weights_of
from kdedge.export.scheme import QuantScheme
from kdedge.export.student_export import HiddenStates, StudentExport
from onnx import TensorProto
from torch import nn
from transformers import PretrainedConfig

from kdedge.students.bilstm import BiLstmForSequenceClassification


class BiLstmExport(StudentExport):
    """A BiLSTM on single texts or pairs."""

    row_layers: ClassVar[tuple[str, ...]] = ("dense", "classifier")
    gains_from_half: ClassVar[bool] = False

    def exact_in_batches(self, config: PretrainedConfig) -> bool:
        # Attention sums over the tokens in float, and padding can change the order of the sums.
        return not config.cross_attention

    def float_attention_products(self, config: PretrainedConfig) -> int:
        # The third is the mean over the tokens.
        return 3 if config.cross_attention else 0

    def inputs(self, config: PretrainedConfig) -> tuple[str, ...]:
        names = ("input_ids", "attention_mask")
        return (*names, "token_type_ids") if config.pair else names

    def write(self, model: BiLstmForSequenceClassification, w: GraphWriter) -> None:
        weights = weights_of(model)
        if model.config.pair:
            features = _pair_features(w, weights, model.config)
        else:
            length = _length(w, "attention_mask")
            features = _final_states(w, weights, "input_ids", length)  # (B, 2H)
        hidden = w.op("Relu", w.linear(features, weights, "dense"))
        w.output(w.linear(hidden, weights, "classifier"))

    def fake_quantize(self, model: BiLstmForSequenceClassification, scheme: QuantScheme) -> None:
        lstm = FakeQuantLstm(model.lstm, scheme)
        layers = {
            "lstm": lstm,
            "embedding": FakeQuantTable(model.embedding, lstm),
            "dense": FakeQuantLinear(model.dense, scheme),
            "classifier": FakeQuantLinear(model.classifier, scheme),
            # Dropout would scale activations beyond their ranges.
            "dropout": nn.Identity(),
        }
        _replace(model, layers)
        if model.config.cross_attention:
            compare = FakeQuantLinear(model.cross_attention.compare, scheme)
            _replace(model.cross_attention, {"compare": compare, "dropout": nn.Identity()})

    def read_states(
        self, model: BiLstmForSequenceClassification, batch: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, HiddenStates]:
        """Return logits (B, C) and the input of the head."""
        head_inputs: HiddenStates = []

        def record(_: nn.Module, inputs: tuple[torch.Tensor]) -> None:
            states = inputs[0][:, None]  # (B, 1, H)
            head_inputs.append((states, torch.ones_like(states[:, :, 0])))

        handle = model.dense.register_forward_pre_hook(record)
        try:
            return model(**batch).logits, head_inputs
        finally:
            handle.remove()


def _replace(module: nn.Module, layers: Mapping[str, nn.Module]) -> None:
    """Replace layers of a module by name."""
    for name, layer in layers.items():
        setattr(module, name, layer)


def _pair_features(w: GraphWriter, weights: Weights, config: PretrainedConfig) -> str:
    """Return what the head reads of a pair: (B, 8H), or (B, 4 head) with cross-attention."""
    first = _length(w, _mask_of_type(w, 0))
    second = _length(w, _mask_of_type(w, 1))
    # One LSTM node over both texts as 2B rows: the quantizer cannot share weights of two nodes.
    both = w.op("Concat", "input_ids", _shift_left(w, first), axis=0)  # (2B, T)
    lengths = w.op("Concat", first, second, axis=0)  # (2B,)
    if config.cross_attention:
        return _cross_attention_features(w, weights, both, lengths)
    states = _final_states(w, weights, both, lengths)  # (2B, 2H)
    u, v = w.op_with_outputs("Split", states, outputs=2, axis=0)  # (B, 2H) each
    return _matching_features(w, u, v, axis=1)


def _matching_features(w: GraphWriter, u: str, v: str, axis: int) -> str:
    """Return u, v, |u - v| and u v, joined along an axis."""
    difference = w.op("Abs", w.op("Sub", u, v))
    product = w.op("Mul", u, v)
    return w.op("Concat", u, v, difference, product, axis=axis)


def _cross_attention_features(w: GraphWriter, weights: Weights, both: str, lengths: str) -> str:
    """Return mean and maximum of the compared tokens of both texts: (B, 4 head).

    Args:
        both: Ids of the first texts, then of the second. *Shape:* (2B, T)
        lengths: Their numbers of tokens. *Shape:* (2B,)
    """
    lengths = w.op("Max", lengths, w.ints(1))
    longest = w.op("ReduceMax", lengths, keepdims=1)  # (1,)
    both = w.op("Slice", both, w.ints([0]), longest, w.ints([1]))  # (2B, L)
    states = _token_states(w, weights, both, lengths)  # (2B, L, 2H)
    is_token = _token_mask(w, longest, lengths)  # (2B, L) int64
    others = _exchange(w, states)
    mask = w.padding_mask(_exchange(w, is_token))
    width = 2 * weights["lstm.weight_hh_l0"].shape[1]
    aligned = w.attention(states, others, others, mask, heads=1, size=width)  # (2B, L, 2H)
    matched = _matching_features(w, states, aligned, axis=2)
    compared = w.op("Relu", w.linear(matched, weights, "cross_attention.compare"))
    present = w.op("Cast", is_token, to=TensorProto.FLOAT)
    counts = w.op("Unsqueeze", w.op("Cast", lengths, to=TensorProto.FLOAT), w.ints([1]))
    shares = w.op("Unsqueeze", w.op("Div", present, counts), w.ints([1]))  # (2B, 1, L)
    # The order in which ReduceSum and ReduceMean add depends on the number of threads.
    mean = w.op("Squeeze", w.op("MatMul", shares, compared), w.ints([1]))  # (2B, head)
    # No feature is negative, so zeros for padding do not raise a maximum.
    masked = w.op("Mul", compared, w.op("Unsqueeze", present, w.ints([2])))
    largest = w.op("ReduceMax", masked, axes=[1], keepdims=0)
    pooled = w.op("Concat", mean, largest, axis=1)  # (2B, 2 head)
    first, second = w.op_with_outputs("Split", pooled, outputs=2, axis=0)
    return w.op("Concat", first, second, axis=1)


def _exchange(w: GraphWriter, values: str) -> str:
    """Exchange the first half of the rows with the second."""
    first, second = w.op_with_outputs("Split", values, outputs=2, axis=0)
    return w.op("Concat", second, first, axis=0)


def _token_mask(w: GraphWriter, longest: str, lengths: str) -> str:
    """Return a mask (2B, L) of the first `lengths` (2B,) of `longest` (1,) tokens."""
    count = w.op("Squeeze", longest, w.ints([0]))
    positions = w.op("Range", w.ints(0), count, w.ints(1))  # (L,)
    before_end = w.op("Less", positions, w.op("Unsqueeze", lengths, w.ints([1])))
    return w.op("Cast", before_end, to=TensorProto.INT64)


def _mask_of_type(w: GraphWriter, number: int) -> str:
    """Return a mask (B, T) of the tokens of one of the two texts."""
    same = w.op("Equal", "token_type_ids", w.ints(number))
    return w.op("Mul", "attention_mask", w.op("Cast", same, to=TensorProto.INT64))


def _length(w: GraphWriter, mask: str) -> str:
    """Return the number of tokens (B,) of a mask (B, T)."""
    return w.op("ReduceSum", mask, w.ints([1]), keepdims=0)


def _shift_left(w: GraphWriter, by: str) -> str:
    """Move row i of input_ids left by `by[i]`; the freed positions are never read."""
    shape = w.op("Shape", "input_ids", start=1, end=2)
    length = w.op("Squeeze", shape, w.ints([0]))
    positions = w.op("Range", w.ints(0), length, w.ints(1))  # (T,)
    offsets = w.op("Unsqueeze", by, w.ints([1]))  # (B, 1)
    shifted = w.op("Add", positions, offsets)  # (B, T)
    last = w.op("Sub", length, w.ints(1))
    return w.op("GatherElements", "input_ids", w.op("Min", shifted, last), axis=1)


def _final_states(w: GraphWriter, weights: Weights, input_ids: str, lengths: str) -> str:
    """Return the forward and backward states (B, 2H) after the first `lengths` tokens."""
    hidden = weights["lstm.weight_hh_l0"].shape[1]
    vectors, steps = _lstm_inputs(w, weights, input_ids, lengths)
    states = w.recurrent(vectors, weights, steps, hidden)  # (2, B, H)
    by_row = w.op("Transpose", states, perm=(1, 0, 2))  # (B, 2, H)
    return w.op("Reshape", by_row, w.ints([0, 2 * hidden]))


def _token_states(w: GraphWriter, weights: Weights, input_ids: str, lengths: str) -> str:
    """Return the states (B, T, 2H) of the first `lengths` tokens, and 0 for the others."""
    hidden = weights["lstm.weight_hh_l0"].shape[1]
    vectors, steps = _lstm_inputs(w, weights, input_ids, lengths)
    states = w.recurrent(vectors, weights, steps, hidden, every_token=True)  # (T, 2, B, H)
    by_row = w.op("Transpose", states, perm=(2, 0, 1, 3))  # (B, T, 2, H)
    return w.op("Reshape", by_row, w.ints([0, 0, 2 * hidden]))


def _lstm_inputs(w: GraphWriter, weights: Weights, input_ids: str, lengths: str) -> tuple[str, str]:
    """Return the vectors (T, B, E) of ids (B, T), and the steps (B,) of the LSTM."""
    transposed = w.op("Transpose", input_ids, perm=(1, 0))
    vectors = w.rows(transposed, weights, "embedding")
    at_least_one = w.op("Max", lengths, w.ints(1))
    return vectors, w.op("Cast", at_least_one, to=TensorProto.INT32)
