"""Fake-quantized torch beside its int8 file, on one text: at every rounding torch goes on with the file's integers.

So each step starts from the same numbers in both, and what torch is about to round can be held against what the file
made of it, everywhere: a difference has no time to grow, and none can hide behind an earlier one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
import torch
from kdedge.export.fake_attention import Operand
from kdedge.export.fake_lstm import FakeQuantLstm, state_scale
from kdedge.export.fake_model import quantized_layers, quantized_products
from kdedge.export.fake_quant import Hook, activation_scale, to_integers
from kdedge.export.graph_writer import INPUT_SCALE
from kdedge.export.parity import Encoded
from kdedge.export.scheme import STEPS
from torch import nn
from transformers import PreTrainedModel

from kdedge.runtime.classifier import SLOW_FUSIONS

LSTM_STATES = "lstm_states"
WEIGHT = ".weight"


class RoundingError(NamedTuple):
    """How far, in steps, a number lay from where it rounds to the file's integer, and what it was rounded for."""

    steps: float
    name: str


class InstrumentedSession:
    """A session of an int8 file that also answers every rounded activation, and an LSTM's states."""

    def __init__(self, graph: bytes, options: onnxruntime.SessionOptions) -> None:
        model = onnx.load_from_string(graph)
        kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
        made: dict[str, str] = {}  # a rounded tensor -> what it is first rounded for
        self.read: dict[str, str] = {}
        """A product or an operand of attention -> the name under which its rounded input is answered."""
        self.outputs = ["logits"]
        for node in list(model.graph.node):
            if node.op_type == "DynamicQuantizeLSTM":
                node.output[0] = LSTM_STATES
                self._answer(model, LSTM_STATES, onnx.TensorProto.FLOAT)
            elif node.op_type == "QuantizeLinear":
                name = made[node.output[0]] = node.input[1].removesuffix(INPUT_SCALE)
                self.read[name] = name
                model.graph.node.append(onnx.helper.make_node("Identity", [node.output[0]], [name]))
                self._answer(model, name, kinds[node.input[2]])
            elif node.input and node.input[0] in made and node.input[1].endswith(WEIGHT):
                self.read[node.input[1].removesuffix(WEIGHT)] = made[node.input[0]]
        self.session = onnxruntime.InferenceSession(
            model.SerializeToString(),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=SLOW_FUSIONS,
        )

    def _answer(self, model: onnx.ModelProto, name: str, kind: int) -> None:
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, kind, None))
        self.outputs.append(name)

    def run(self, text: Encoded) -> dict[str, np.ndarray]:
        return dict(zip(self.outputs, self.session.run(self.outputs, dict(text)), strict=True))


class GuidedReplay:
    """One text (1, T) read by torch with a file's integers. strays: one for each rounding; logits: (1, C), what torch makes of these integers.

    tied: whether an integer is another than torch would have taken.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        text: Encoded,
        file: InstrumentedSession,
        theirs: Mapping[str, np.ndarray],
    ) -> None:
        self.theirs, self.strays, self.tied, self.calls = theirs, list[RoundingError](), False, 0
        watched = {
            **quantized_products(model),
            **{
                name: module
                for name, module in model.named_modules()
                if isinstance(module, Operand)
            },
        }
        lstms = [layer for _, layer in quantized_layers(model) if isinstance(layer, FakeQuantLstm)]
        try:
            for name, module in watched.items():
                if name in file.read:
                    module.watch = self._leading(name, module, file.read[name])
            for lstm in lstms:
                lstm.watch = self._leading_states
            with torch.inference_mode():
                self.logits: np.ndarray = model(
                    **{name: torch.from_numpy(values) for name, values in text.items()}
                ).logits.numpy()
        finally:
            for module in (*watched.values(), *lstms):
                module.watch = None

    @property
    def farthest(self) -> RoundingError:
        return max(self.strays, default=RoundingError(0.0, ""))

    def _leading(self, name: str, module: nn.Module, source: str) -> Hook:
        low, high = (module.lowest, module.highest) if isinstance(module, Operand) else (0, STEPS)

        def watch(steps: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
            found = torch.from_numpy(self.theirs[source].astype(np.float32))
            if (
                isinstance(module, Operand) and found.dim() < whole.dim()
            ):  # rounded before its heads are told apart
                found = found.unflatten(2, (whole.shape[1], whole.shape[3])).transpose(1, 2)
            return self._lead(name, steps.clamp(low, high), whole, found)

        return watch

    def _lead(
        self, name: str, steps: torch.Tensor, whole: torch.Tensor, found: torch.Tensor
    ) -> torch.Tensor:
        """The file computes the last layer for the first token alone: where it says nothing, torch's own integers stay."""
        places = tuple(map(slice, found.shape))
        apart = float((steps[places] - found).abs().max()) - 0.5
        self.strays.append(RoundingError(math.inf if math.isnan(apart) else max(apart, 0.0), name))
        led = whole.clone()
        led[places] = found
        self.tied |= not torch.equal(led, whole)
        return led

    def _leading_states(
        self, count: int
    ) -> Callable[[int, torch.Tensor, torch.Tensor], torch.Tensor]:
        row, self.calls = self.calls, self.calls + 1

        def watch(step: int, steps: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
            found = rounded_states(self.theirs[LSTM_STATES][:, :, row], step, count, whole.shape[2])
            return self._lead(f"{LSTM_STATES}.{row}.{step}", steps.clamp(0, STEPS), whole, found)

        return watch if LSTM_STATES in self.theirs else lambda step, steps, whole: whole


def rounded_states(states: np.ndarray, step: int, count: int, hidden: int) -> torch.Tensor:
    """The states (T, 2, H with pins) of a file's LSTM after `step` of `count` steps, as it rounds them for the next one: (2, 1, hidden).

    It finds its scale in its own states, pins included, which may differ from ours in the last bit. Its zero point may be the next one, for
    127.5 lies between: what counts is how far a state is from it.
    """
    _, zero = state_scale(step)
    both = [
        torch.from_numpy(states[place, side]) for side, place in enumerate((step - 1, count - step))
    ]  # backwards in the order of the text
    whole = [
        to_integers(state[:hidden], activation_scale(state.min(), state.max())[0], zero, 0, STEPS)
        for state in both
    ]
    return torch.stack(whole)[:, None]
