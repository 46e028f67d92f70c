"""A BiLSTM student as one ONNX LSTM node; `sequence_lens` excludes the padding."""

from __future__ import annotations

from kdedge.export.graph_writer import GraphWriter, Weights, weights_of
from onnx import TensorProto

from kdedge.students.bilstm import BiLstmForSequenceClassification


def bilstm_inputs(pair: bool) -> tuple[str, ...]:
    names = ("input_ids", "attention_mask")
    return (*names, "token_type_ids") if pair else names


def write_bilstm(
    model: BiLstmForSequenceClassification, w: GraphWriter | None = None
) -> GraphWriter:
    """Write a BiLSTM from `bilstm_inputs` (B, T) to logits (B, C), for any B and T.

    Args:
        model: The student.
        w: A writer with `bilstm_inputs(pair)`; default: fp32 in standard operators.
    """
    pair = bool(model.config.pair)
    w = w or GraphWriter(bilstm_inputs(pair))
    weights = weights_of(model)
    if pair:
        features = _pair_features(w, weights)  # (B, 8H)
    else:
        length = _length(w, "attention_mask")
        features = _final_states(w, weights, "input_ids", length)  # (B, 2H)
    hidden = w.op("Relu", w.linear(features, weights, "dense"))
    w.output(w.linear(hidden, weights, "classifier"))
    return w


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
