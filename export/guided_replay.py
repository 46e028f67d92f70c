"""Replays one text in fake-quantized torch with the integers of its int8 file.

Torch and the file do the same integer arithmetic, but float operations between the integers differ
in the last bit. If an activation lies halfway between two integers (a tie), both may round it
differently, and the difference would spread through all later layers. So torch is led, as by
teacher forcing: wherever it rounds, it compares its own value with the file's integer and then
continues with the file's integer. No difference can grow, and none can hide behind an earlier one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
import torch
from kdedge.export.fake_model import quantized_lstms, quantized_products
from kdedge.export.fake_quant import Hook, activation_scale, to_integers
from kdedge.export.graph_writer import INPUT_SCALE
from kdedge.export.lstm_steps import TokenHook, state_scale
from kdedge.export.parity import Encoded, torch_logits
from kdedge.export.scheme import UINT8_MAX
from transformers import PreTrainedModel

from kdedge.runtime.session import SLOW_FUSIONS

LSTM_STATES = "lstm_states"
WEIGHT = ".weight"


class RoundingError(NamedTuple):
    """A rounding that the file and torch may do differently.

    Attributes:
        distance: From torch's value to the nearest value that rounds to the file's integer, in
            units of one integer: 0 if torch rounds to the same integer.
        name: The layer that rounds.
    """

    distance: float
    name: str


class InstrumentedSession:
    """A session on an int8 file that also returns every rounded activation and the LSTM's states.

    Attributes:
        rounded_input: Name of a product -> name of the output with its rounded input.
    """

    def __init__(self, graph: bytes, options: onnxruntime.SessionOptions) -> None:
        model = onnx.load_from_string(graph)
        types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
        self.outputs = ["logits"]
        self.rounded_input: dict[str, str] = {}
        rounded: dict[str, str] = {}  # tensor -> output
        for node in list(model.graph.node):
            if node.op_type == "DynamicQuantizeLSTM":
                copy = onnx.helper.make_node("Identity", [node.output[0]], [LSTM_STATES])
                model.graph.node.append(copy)
                self._add_output(model, LSTM_STATES, onnx.TensorProto.FLOAT)
            elif node.op_type == "QuantizeLinear":
                name = node.input[1].removesuffix(INPUT_SCALE)
                rounded[node.output[0]] = name
                self.rounded_input[name] = name
                model.graph.node.append(onnx.helper.make_node("Identity", [node.output[0]], [name]))
                self._add_output(model, name, types[node.input[2]])
            elif node.input and node.input[0] in rounded and node.input[1].endswith(WEIGHT):
                product = node.input[1].removesuffix(WEIGHT)
                self.rounded_input[product] = rounded[node.input[0]]
        self.session = onnxruntime.InferenceSession(
            model.SerializeToString(),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=SLOW_FUSIONS,
        )

    def _add_output(self, model: onnx.ModelProto, name: str, kind: int) -> None:
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, kind, None))
        self.outputs.append(name)

    def run(self, text: Encoded) -> dict[str, np.ndarray]:
        """Return all outputs for one text (1, T)."""
        return dict(zip(self.outputs, self.session.run(self.outputs, dict(text)), strict=True))


@dataclass(frozen=True)
class ReplayedText:
    """The result of a replay.

    Attributes:
        logits: Of torch with the file's integers. *Shape:* (1, C)
        file_logits: Of the file. *Shape:* (1, C)
        errors: One per rounding.
        rounding_differs: Whether torch would have taken another integer anywhere.
    """

    logits: np.ndarray
    file_logits: np.ndarray
    errors: list[RoundingError]
    rounding_differs: bool

    @property
    def largest_error(self) -> RoundingError:
        return max(self.errors, default=RoundingError(0.0, ""))


class GuidedReplay:
    """One text read by torch with the integers of an int8 file."""

    def __init__(
        self, model: PreTrainedModel, file: InstrumentedSession, outputs: Mapping[str, np.ndarray]
    ) -> None:
        """Prepare the replay of a text for which `file` returned `outputs`."""
        self.model, self.file, self.outputs = model, file, outputs
        self.errors: list[RoundingError] = []
        self.rounding_differs = False
        self.lstm_calls = 0

    def run(self, text: Encoded) -> ReplayedText:
        """Replay one text (1, T)."""
        products = quantized_products(self.model)
        lstms = quantized_lstms(self.model)
        try:
            for name, product in products.items():
                if name in self.file.rounded_input:
                    product.hook = self._hook(name)
            if LSTM_STATES in self.outputs:
                for lstm in lstms:
                    lstm.hook = self._lstm_hook
            logits = torch_logits(self.model, text)
        finally:
            for product in products.values():
                product.hook = None
            for lstm in lstms:
                lstm.hook = None
        return ReplayedText(logits, self.outputs["logits"], self.errors, self.rounding_differs)

    def _hook(self, name: str) -> Hook:
        """Return a hook that leads the input of a product."""
        integers = self.outputs[self.file.rounded_input[name]].astype(np.float32)
        target = torch.from_numpy(integers)

        def hook(values: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
            return self._lead(name, values.clamp(0, UINT8_MAX), whole, target)

        return hook

    def _lead(
        self, name: str, values: torch.Tensor, whole: torch.Tensor, target: torch.Tensor
    ) -> torch.Tensor:
        """Record the rounding error and return the integers to continue with.

        Args:
            name: The layer that rounds.
            values: Torch's activations / scale + zero point, before rounding. *Shape:* any
            whole: Torch's integers: `values` rounded. Same shape.
            target: The file's integers. Each dimension is at most as long as that of `values`: the
                file computes the last layer for the first token only.

        Returns:
            `target`; where it has no integer, that of `whole`.
        """
        common = tuple(slice(size) for size in target.shape)
        distance = float((values[common] - target).abs().max()) - 0.5
        error = math.inf if math.isnan(distance) else max(distance, 0.0)
        self.errors.append(RoundingError(error, name))
        led = whole.clone()
        led[common] = target
        if not torch.equal(led, whole):
            self.rounding_differs = True
        return led

    def _lstm_hook(self, num_tokens: int) -> TokenHook:
        """Return a hook that leads the states of the LSTM's next call.

        The model calls its LSTM once for a text, and twice for a pair.
        """
        row = self.lstm_calls
        self.lstm_calls += 1
        states = self.outputs[LSTM_STATES][:, :, row]  # (T, 2, H + ANCHORS)

        def hook(read: int, values: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
            target = rounded_states(states, read, num_tokens, whole.shape[2])
            name = f"{LSTM_STATES}.{row}.{read}"
            return self._lead(name, values.clamp(0, UINT8_MAX), whole, target)

        return hook


def rounded_states(states: np.ndarray, read: int, num_tokens: int, hidden: int) -> torch.Tensor:
    """Round the LSTM states of a file to integers.

    The scale is the one that the file finds: it spans the states and their anchors -tanh(read) and
    tanh(read), and may differ from torch's scale in the last bit. The zero point is torch's. The
    range is symmetric, so its zero is exactly 255 / 2 = 127.5; the file rounds it to 127 or 128,
    torch to one of them. The choice has no effect, because only the distance of a state from the
    zero point is used.

    Args:
        states: The file's states of one text, in the order of its tokens; the states of padding
            follow. *Shape:* (T, 2, H + anchors)
        read: Number of tokens that each direction has read, at least 1.
        num_tokens: Number of tokens of the text, at most T.
        hidden: H.

    Returns:
        Integers from 0 to 255. *Shape:* (2, 1, H)
    """
    _, zero = state_scale(read)
    # The backward direction reads the last token first.
    directions = (states[read - 1, 0], states[num_tokens - read, 1])
    rounded = []
    for direction in directions:
        state = torch.from_numpy(direction)
        scale, _ = activation_scale(state.min(), state.max())
        rounded.append(to_integers(state[:hidden], scale, zero, 0, UINT8_MAX))
    return torch.stack(rounded)[:, None]
