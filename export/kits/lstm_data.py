"""Writes the weights of a BiLSTM's int8 file as C for `shared/lstm.h`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from kdedge.export.kits.c_text import c_array, c_bytes, c_macros
from kdedge.export.lstm_weights import ANCHORS
from kdedge.export.scheme import UINT8_MAX
from onnx import numpy_helper

from kdedge.errors import IntegrityError, UsageError
from kdedge.runtime.bundle import Bundle
from kdedge.runtime.layout import PRECISIONS

BLOCK = 8
"""Outputs whose weights stand next to each other, as in multiply.h."""

STEP = 4
"""Inputs of one output that stand next to each other."""

STATE_SCALES = 16
"""Tokens after which the range of the states no longer grows in float32."""

LINEAR_TYPE = """
typedef struct {
    size_t inputs, input_room, outputs, output_room; /* Room is for whole steps and blocks. */
    float scale;
    int zero;
    const signed char *weights;
    const int32_t *weight_sums;
    const float *scales, *bias;
} kd_linear;
"""


@dataclass(frozen=True)
class LstmStudent:
    """The tensors of a BiLSTM's int8 file by name, without the units that anchor ranges."""

    tensors: dict[str, np.ndarray]

    @classmethod
    def of(cls, bundle: Bundle) -> LstmStudent:
        """Read the int8 file of a bundle.

        Raises:
            UsageError: If it is no BiLSTM with static ranges and 7-bit weights, or if it has
                cross-attention.
        """
        scheme = bundle.manifest.scheme
        if "int8" not in bundle.manifest.precisions or scheme is None:
            raise _refused("this bundle has no int8 file", "export it with --precision int8")
        ranges, bits = scheme.get("activations", "unknown"), scheme.get("weight_bits")
        if ranges != "static" or bits != 7:
            found = f"{ranges} ranges, {bits}-bit weights"
            raise _refused(found, "export it with --scheme static --weight-bits 7")
        graph = onnx.load_from_string(bundle.contents[PRECISIONS["int8"]]).graph
        tensors = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
        if "lstm.w" not in tensors:
            raise _refused("this student is no BiLSTM", "use --kit cpp or --kit node")
        if "cross_attention.compare.weight" in tensors:
            raise _refused("this student has cross-attention", "use --kit cpp or --kit node")
        return cls(_without_anchors(tensors))

    def require_rows(self, ids: int) -> None:
        """Raise IntegrityError if an id has no row: C code would read beyond the table."""
        rows = len(self.tensors["embedding.rows"])
        if ids > rows:
            raise IntegrityError(
                "the tokenizer has more ids than the student has embeddings",
                f"{ids:,} ids, {rows:,} embeddings",
                "do not use this bundle; export it again",
            )

    def source(self) -> str:
        """Return all weights as C."""
        return "\n".join(
            [
                "/* The weights of the student. Written by kdedge. */\n",
                LINEAR_TYPE,
                self._table(),
                self._lstm(),
                self._state_scales(),
                self._linear("dense"),
                self._linear("classifier"),
                self._sizes(),
            ]
        )

    @property
    def states(self) -> int:
        return int(self.tensors["lstm.r"].shape[1])

    def _scale(self, name: str) -> str:
        return float(self.tensors[name].item()).hex() + "f"

    def _table(self) -> str:
        rows = _wider(self.tensors["embedding.rows"], 1, STEP)
        macros = {
            "KD_ROW_ROOM": rows.shape[1],
            "KD_ROW_ZERO": self.tensors["embedding.zero"].item(),
            "KD_ROW_SCALE": self._scale("embedding.scale"),
        }
        return c_macros(macros) + c_bytes("unsigned char", "kd_rows", rows.tobytes())

    def _lstm(self) -> str:
        room = -self.states % BLOCK + self.states
        parts = [c_macros({"KD_STATES": self.states, "KD_STATE_ROOM": room})]
        for name in ("w", "r"):
            weight = _wider_gates(self.tensors[f"lstm.{name}"])  # (2, in, 4 room)
            weight = _wider(weight, 1, STEP if name == "w" else BLOCK)
            blocks = [_in_blocks(direction) for direction in weight]
            scales = _wider_gates(self.tensors[f"lstm.{name}_scales"])
            parts.append(c_bytes("signed char", f"kd_lstm_{name}", b"".join(blocks)))
            parts.append(c_array("int32_t", f"kd_lstm_{name}_sums", _sums(weight, axis=1)))
            parts.append(c_array("float", f"kd_lstm_{name}_scales", scales.ravel()))
        both = self.tensors["lstm.bias"].reshape(2, 2, -1)  # of W, then of R
        bias = _wider_gates(both[:, 0] + both[:, 1])
        parts.append(c_array("float", "kd_lstm_bias", bias.ravel()))
        return "\n".join(parts)

    def _state_scales(self) -> str:
        """Return how states are rounded after t tokens: over [-tanh t, tanh t]."""
        ends = np.tanh(np.arange(1, STATE_SCALES, dtype=np.float32))
        scales = (2 * ends / np.float32(UINT8_MAX)).astype(np.float32)
        zeros = np.rint(ends / scales).astype(int)
        return "\n".join(
            [
                c_macros({"KD_STATE_SCALES": STATE_SCALES}),
                c_array("float", "kd_state_scale", [1.0, *scales.tolist()]),
                c_array("int", "kd_state_zero", [0, *zeros.tolist()]),
            ]
        )

    def _linear(self, name: str) -> str:
        weight = self.tensors[f"{name}.weight"]  # (in, out)
        inputs, outputs = weight.shape
        weight = _wider(_wider(weight, 0, STEP), 1, BLOCK)
        scale = self._scale(f"{name}.input_scale")
        zero = self.tensors[f"{name}.input_zero"].item()
        fields = (
            f"{inputs}, {weight.shape[0]}, {outputs}, {weight.shape[1]}, {scale}, {zero}, "
            f"kd_{name}_weights, kd_{name}_sums, kd_{name}_scales, kd_{name}_bias"
        )
        return "\n".join(
            [
                c_bytes("signed char", f"kd_{name}_weights", _in_blocks(weight)),
                c_array("int32_t", f"kd_{name}_sums", _sums(weight, axis=0)),
                c_array("float", f"kd_{name}_scales", self.tensors[f"{name}.scales"]),
                c_array("float", f"kd_{name}_bias", self.tensors[f"{name}.bias"]),
                f"static const kd_linear kd_{name} = {{{fields}}};\n",
            ]
        )

    def _sizes(self) -> str:
        """Return the room that both layers of the head need."""
        shapes = [self.tensors[f"{name}.weight"].shape for name in ("dense", "classifier")]
        most_inputs = max(shape[0] for shape in shapes)
        most_outputs = max(shape[1] for shape in shapes)
        return c_macros(
            {
                "KD_MOST_INPUTS": most_inputs + -most_inputs % STEP,
                "KD_MOST_OUTPUTS": most_outputs + -most_outputs % BLOCK,
            }
        )


def _without_anchors(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Remove the inputs and units that only hold ranges still in ONNX Runtime."""
    plain = dict(tensors)
    plain["embedding.rows"] = tensors["embedding.rows"][:, :-ANCHORS]
    for name in ("lstm.w", "lstm.r"):
        plain[name] = _without_anchor_gates(tensors[name][:, :-ANCHORS])
        plain[f"{name}_scales"] = _without_anchor_gates(tensors[f"{name}_scales"])
    gates = tensors["lstm.bias"].reshape(2, 8, -1)
    plain["lstm.bias"] = gates[:, :, :-ANCHORS].reshape(2, -1)
    return plain


def _without_anchor_gates(values: np.ndarray) -> np.ndarray:
    """Narrow the last axis from 4 (H + ANCHORS) to 4H."""
    gates = values.reshape(*values.shape[:-1], 4, -1)[..., :-ANCHORS]
    return gates.reshape(*values.shape[:-1], -1)


def _wider_gates(values: np.ndarray) -> np.ndarray:
    """Widen each gate of the last axis (4H) with zeros to a multiple of `BLOCK`."""
    gates = values.reshape(*values.shape[:-1], 4, -1)
    wider = _wider(gates, gates.ndim - 1, BLOCK)
    return wider.reshape(*values.shape[:-1], -1)


def _wider(values: np.ndarray, axis: int, multiple: int) -> np.ndarray:
    """Append zeros along an axis up to a multiple."""
    padding = [(0, 0)] * values.ndim
    padding[axis] = (0, -values.shape[axis] % multiple)
    return np.pad(values, padding)


def _in_blocks(weight: np.ndarray) -> bytes:
    """Return int8 weights (in, out) in the order in which `kd_multiply` reads them."""
    inputs, outputs = weight.shape
    blocks = weight.reshape(inputs // STEP, STEP, outputs // BLOCK, BLOCK)
    return np.ascontiguousarray(blocks.transpose(2, 0, 3, 1)).tobytes()


def _sums(weight: np.ndarray, axis: int) -> Any:
    """Return the sum of each output's weights."""
    return weight.astype(np.int64).sum(axis).ravel()


def _refused(detail: str, hint: str) -> UsageError:
    return UsageError(
        "the C kit is for BiLSTM students with a static int8 file of 7-bit weights", detail, hint
    )
