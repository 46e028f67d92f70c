"""LSTM weights as ONNX's operators read them, in fp32 and in integers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from kdedge.export.fake_lstm import FakeQuantLstm, FakeQuantTable
from kdedge.export.scheme import STEPS

PINS = 2
"""Columns of the table, and units of the LSTM, that stand at the two ends of a range in every row."""

SATURATED = 40.0
"""A bias at which sigmoid and tanh are 1 in fp32."""


def onnx_order(values: np.ndarray) -> np.ndarray:
    """(4H, ...): torch's filters i, f, g, o in ONNX's order i, o, f, g (ONNX LSTM-14)."""
    i, f, g, o = np.split(values, 4, axis=0)
    return np.concatenate([i, o, f, g], axis=0)


def lstm_weights(weights: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """W (2, 4H, E), R (2, 4H, H), B (2, 8H), forward and backward, in ONNX's order of filters."""

    def both(name: str) -> np.ndarray:
        return np.stack(
            [onnx_order(weights[f"lstm.{name}_l0{direction}"]) for direction in ("", "_reverse")]
        )

    return (
        both("weight_ih"),
        both("weight_hh"),
        np.concatenate([both("bias_ih"), both("bias_hh")], axis=1),
    )


@dataclass(frozen=True)
class UniformTable:
    """Rows (V, E) uint8 with one scale and zero point."""

    rows: np.ndarray
    scale: np.ndarray
    zero: np.ndarray

    @classmethod
    def of(cls, layer: FakeQuantTable) -> UniformTable:
        with torch.inference_mode():
            rows, scale, zero = (part.numpy() for part in layer.integer_weight())
        return cls(rows.astype(np.uint8), scale.astype(np.float32), zero.astype(np.uint8))

    @property
    def pinned(self) -> UniformTable:
        """With two more columns, the lowest and the highest number: a range found over any rows is that of the table."""
        ends = np.tile(np.array([0, STEPS], np.uint8), (len(self.rows), 1))
        return UniformTable(np.concatenate([self.rows, ends], axis=1), self.scale, self.zero)


@dataclass(frozen=True)
class IntegerLstm:
    """What DynamicQuantizeLSTM reads: W (2, E, 4H) and R (2, H, 4H) int8, their scales (2, 4H), B (2, 8H) float32."""

    w: np.ndarray
    r: np.ndarray
    w_scales: np.ndarray
    r_scales: np.ndarray
    bias: np.ndarray

    @classmethod
    def of(cls, layer: FakeQuantLstm) -> IntegerLstm:
        parts: list[np.ndarray] = []
        with torch.inference_mode():
            for name in ("weight_ih", "weight_hh"):
                whole, scales = (
                    np.stack([onnx_order(half) for half in part.numpy()])
                    for part in layer.integer_weight(name)
                )
                parts += [
                    whole.astype(np.int8).transpose(0, 2, 1),
                    scales[..., 0].astype(np.float32),
                ]
            named = {
                f"lstm.{name}": value.numpy()
                for name, value in layer.named_parameters()
                if name.startswith(("weight", "bias"))
            }
        return cls(parts[0], parts[2], parts[1], parts[3], lstm_weights(named)[2])

    @property
    def pinned(self) -> IntegerLstm:
        """With two more inputs that no gate reads, and two more units that read nothing and that nothing reads.

        Their filters are open and add 1, or -1, to their cells at every step: their states are tanh t and -tanh t after
        t steps, whatever the text, and no other unit's are larger.
        """
        filters = self.bias.reshape(2, 8, -1)  # i, o, f, g of W, then of R
        ends = np.zeros((2, 8, PINS), np.float32)
        ends[:, :4], ends[:, 3, 1] = SATURATED, -SATURATED
        return IntegerLstm(
            _wider(self.w, 0),
            _wider(self.r, 0),
            _wider(self.w_scales[:, None], 1, rows=0)[:, 0],
            _wider(self.r_scales[:, None], 1, rows=0)[:, 0],
            np.concatenate([filters, ends], axis=2).reshape(2, -1),
        )


def _wider(values: np.ndarray, fill: float, rows: int = PINS) -> np.ndarray:
    """(2, n, 4H) -> (2, n + rows, 4 (H + PINS)), the new places filled."""
    split = values.reshape(*values.shape[:2], 4, -1)
    return np.pad(split, ((0, 0), (0, rows), (0, 0), (0, PINS)), constant_values=fill).reshape(
        2, values.shape[1] + rows, -1
    )
