"""A BiLSTM as an ONNX graph with one LSTM node, and as a model that rounds as its int8 file does.

`sequence_lens` of the node excludes the padding.
"""

from __future__ import annotations

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
    exact_in_batches: ClassVar[bool] = True
    gains_from_half: ClassVar[bool] = False

    def inputs(self, config: PretrainedConfig) -> tuple[str, ...]:
        names = ("input_ids", "attention_mask")
        return (*names, "token_type_ids") if config.pair else names

    def write(self, model: BiLstmForSequenceClassification, w: GraphWriter) -> None:
        weights = weights_of(model)
        if model.config.pair:
            features = _pair_features(w, weights)  # (B, 8H)
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
        for name, layer in layers.items():
            setattr(model, name, layer)

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


def _pair_features(w: GraphWriter, weights: Weights) -> str:
    """Return u, v, |u - v| and u v of the two texts' final states: (B, 8H)."""
    first = _length(w, _mask_of_type(w, 0))
    second = _length(w, _mask_of_type(w, 1))
    # One LSTM node over both texts as 2B rows: the quantizer cannot share weights of two nodes.
    both = w.op("Concat", "input_ids", _shift_left(w, first), axis=0)  # (2B, T)
    lengths = w.op("Concat", first, second, axis=0)  # (2B,)
    states = _final_states(w, weights, both, lengths)  # (2B, 2H)
    u, v = w.op_with_outputs("Split", states, outputs=2, axis=0)  # (B, 2H) each
    difference = w.op("Abs", w.op("Sub", u, v))
    product = w.op("Mul", u, v)
    return w.op("Concat", u, v, difference, product, axis=1)


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
    transposed = w.op("Transpose", input_ids, perm=(1, 0))
    vectors = w.rows(transposed, weights, "embedding")  # (T, B, E)
    at_least_one = w.op("Max", lengths, w.ints(1))
    steps = w.op("Cast", at_least_one, to=TensorProto.INT32)
    states = w.recurrent(vectors, weights, steps, hidden)  # (2, B, H)
    by_row = w.op("Transpose", states, perm=(1, 0, 2))  # (B, 2, H)
    return w.op("Reshape", by_row, w.ints([0, 2 * hidden]))
