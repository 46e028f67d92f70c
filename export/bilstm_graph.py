"""A BiLSTM student as one ONNX LSTM node; `sequence_lens` keeps padding out of it."""

from __future__ import annotations

import numpy as np
from kdedge.export.graph_writer import GraphWriter

from kdedge.students.bilstm import BiLstmForSequenceClassification


def bilstm_inputs(pair: bool) -> tuple[str, ...]:
    return (
        ("input_ids", "attention_mask", "token_type_ids")
        if pair
        else ("input_ids", "attention_mask")
    )


def write_bilstm(
    model: BiLstmForSequenceClassification, w: GraphWriter | None = None
) -> GraphWriter:
    """input_ids, attention_mask (and token_type_ids for pairs) (B, T) int64 -> logits (B, C) float32, any B and T.

    w: the writer to use; default: fp32 in plain operators. Its inputs are `bilstm_inputs(pair)`.
    """
    pair = bool(model.config.pair)
    w = w or GraphWriter(bilstm_inputs(pair))
    weights = {name: value.detach().cpu().numpy() for name, value in model.state_dict().items()}
    if pair:
        first, second = _length(w, _mask_of_type(w, 0)), _length(w, _mask_of_type(w, 1))
        # One LSTM node over both texts as 2B rows: the quantizer cannot share its weights between two.
        both = w.op("Concat", "input_ids", _shift_left(w, first), axis=0)  # (2B, T)
        u, v = w.op(
            "Split",
            _read(w, weights, both, w.op("Concat", first, second, axis=0)),
            outputs=2,
            axis=0,
        )
        features = w.op(
            "Concat", u, v, w.op("Abs", w.op("Sub", u, v)), w.op("Mul", u, v), axis=1
        )  # (B, 8H)
    else:
        features = _read(w, weights, "input_ids", _length(w, "attention_mask"))  # (B, 2H)
    hidden = w.op("Relu", w.linear(features, weights, "dense"))
    w.output(w.linear(hidden, weights, "classifier"))
    return w


def _mask_of_type(w: GraphWriter, number: int) -> str:
    """(B, T), 1 on the real tokens of one of the two texts."""
    same = w.op("Cast", w.op("Equal", "token_type_ids", w.ints(number)), to=7)  # 7: int64
    return str(w.op("Mul", "attention_mask", same))


def _length(w: GraphWriter, mask: str) -> str:
    """(B,) int64 tokens, as many as the mask has ones."""
    return str(w.op("ReduceSum", mask, w.ints([1]), keepdims=0))


def _shift_left(w: GraphWriter, by: str) -> str:
    """Row i of input_ids moved left by `by[i]`; the places that come free are never read."""
    length = w.op("Squeeze", w.op("Shape", "input_ids", start=1, end=2), w.ints([0]))
    places = w.op(
        "Add", w.op("Range", w.ints(0), length, w.ints(1)), w.op("Unsqueeze", by, w.ints([1]))
    )  # (B, T)
    return str(
        w.op(
            "GatherElements",
            "input_ids",
            w.op("Min", places, w.op("Sub", length, w.ints(1))),
            axis=1,
        )
    )


def _read(w: GraphWriter, weights: dict[str, np.ndarray], input_ids: str, lengths: str) -> str:
    """Final forward and backward states (B, 2H) over the first `lengths` tokens."""
    hidden = weights["lstm.weight_hh_l0"].shape[1]
    vectors = w.rows(w.op("Transpose", input_ids, perm=(1, 0)), weights, "embedding")  # (T, B, E)
    steps = w.op("Cast", w.op("Max", lengths, w.ints(1)), to=6)  # 6: int32
    states = w.recurrent(vectors, weights, steps, hidden)  # (2, B, H)
    return str(w.op("Reshape", w.op("Transpose", states, perm=(1, 0, 2)), w.ints([0, 2 * hidden])))
