"""LSTM weights in the layout of ONNX's operators, in fp32 and in integers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from kdedge.export.fake_lstm import FakeQuantLstm, FakeQuantTable
from kdedge.export.scheme import UINT8_MAX

ANCHORS = 2
"""Extra columns of the table, and extra units of the LSTM, that hold both ends of a range."""

SATURATED = 40.0
"""A bias at which sigmoid and tanh are 1 in fp32."""

DIRECTIONS = ("", "_reverse")


def onnx_order(values: np.ndarray) -> np.ndarray:
    """Reorder the gates of (4H, ...) from torch's i, f, g, o to ONNX's i, o, f, g (LSTM-14)."""
    i, f, g, o = np.split(values, 4, axis=0)
    return np.concatenate([i, o, f, g], axis=0)


def lstm_weights(weights: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return W (2, 4H, E), R (2, 4H, H) and B (2, 8H) of both directions, in ONNX's layout."""
    bias = np.concatenate([_both(weights, "bias_ih"), _both(weights, "bias_hh")], axis=1)
    return _both(weights, "weight_ih"), _both(weights, "weight_hh"), bias


def _both(weights: dict[str, np.ndarray], name: str) -> np.ndarray:
    """Stack one parameter of both directions."""
    return np.stack([onnx_order(weights[f"lstm.{name}_l0{direction}"]) for direction in DIRECTIONS])


@dataclass(frozen=True)
class UniformTable:
    """Rows (V, E) uint8 with one scale and zero point.

    The field names are part of the file's tensor names.
    """

    rows: np.ndarray
    scale: np.ndarray
    zero: np.ndarray

    @classmethod
    def of(cls, layer: FakeQuantTable) -> UniformTable:
        with torch.inference_mode():
            rows, scale, zero = layer.integer_weight()
        return cls(
            rows.numpy().astype(np.uint8),
            scale.numpy().astype(np.float32),
            zero.numpy().astype(np.uint8),
        )

    @property
    def range_anchored(self) -> UniformTable:
        """The table with two more columns, its lowest and its highest number.

        The LSTM's operator finds the range of its inputs itself: with these columns, the range of
        any rows is that of the whole table.
        """
        ends = np.tile(np.array([0, UINT8_MAX], np.uint8), (len(self.rows), 1))
        return UniformTable(np.concatenate([self.rows, ends], axis=1), self.scale, self.zero)


@dataclass(frozen=True)
class IntegerLstm:
    """Inputs of DynamicQuantizeLSTM.

    W (2, E, 4H) and R (2, H, 4H) are int8, their scales (2, 4H) and B (2, 8H) float32.
    The field names are part of the file's tensor names.
    """

    w: np.ndarray
    r: np.ndarray
    w_scales: np.ndarray
    r_scales: np.ndarray
    bias: np.ndarray

    @classmethod
    def of(cls, layer: FakeQuantLstm) -> IntegerLstm:
        with torch.inference_mode():
            w, w_scales = _integers(layer, "weight_ih")
            r, r_scales = _integers(layer, "weight_hh")
        weights = {}
        for name, value in layer.named_parameters():
            if name.startswith(("weight", "bias")):
                weights[f"lstm.{name}"] = value.detach().numpy()
        return cls(w, r, w_scales, r_scales, lstm_weights(weights)[2])

    @property
    def range_anchored(self) -> IntegerLstm:
        """The LSTM with two more inputs that no gate reads, and two more independent units.

        The gates of the new units are open and add 1, or -1, to their cells at every step. So
        their states are tanh t and -tanh t after t steps, for any text, and no other unit's state
        is larger.
        """
        gates = self.bias.reshape(2, 8, -1)  # (2, 8, H): i, o, f, g of W, then of R
        ends = np.zeros((2, 8, ANCHORS), np.float32)
        ends[:, :4] = SATURATED
        ends[:, 3, 1] = -SATURATED
        return IntegerLstm(
            _wider(self.w, 0),
            _wider(self.r, 0),
            _wider(self.w_scales[:, None], 1, rows=0)[:, 0],
            _wider(self.r_scales[:, None], 1, rows=0)[:, 0],
            np.concatenate([gates, ends], axis=2).reshape(2, -1),
        )


def _integers(layer: FakeQuantLstm, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return int8 weights (2, in, 4H) and their scales (2, 4H)."""
    whole, scales = layer.integer_weight(name)  # (2, 4H, in), (2, 4H, 1)
    weights = np.stack([onnx_order(direction) for direction in whole.numpy()])
    ordered = np.stack([onnx_order(direction) for direction in scales.numpy()])
    return weights.astype(np.int8).transpose(0, 2, 1), ordered[..., 0].astype(np.float32)


def _wider(values: np.ndarray, fill: float, rows: int = ANCHORS) -> np.ndarray:
    """Widen (2, n, 4H) to (2, n + rows, 4 (H + ANCHORS)) with a fill value."""
    gates = values.reshape(*values.shape[:2], 4, -1)
    padding = ((0, 0), (0, rows), (0, 0), (0, ANCHORS))
    padded = np.pad(gates, padding, constant_values=fill)
    return padded.reshape(2, values.shape[1] + rows, -1)
