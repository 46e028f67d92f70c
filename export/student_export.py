"""What the export of a student needs to know about its model class."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from kdedge.export.graph_writer import GraphWriter
from kdedge.export.scheme import QuantScheme
from transformers import PretrainedConfig

HiddenStates = list[tuple[torch.Tensor, torch.Tensor]]
"""Hidden states (B, T, H), each with a mask (B, T) of those that affect the logits."""


class StudentExport(ABC):
    """How models of one class are written as ONNX files and rounded as those files round.

    A model is a classifier of transformers; `fake_quantized` keeps its class.
    """

    row_layers: ClassVar[tuple[str, ...]]
    """Linear layers with one input row per text, (B, H)."""

    gains_from_half: ClassVar[bool]
    """Whether a 16-bit file makes sense: whether matrix products take most of a GPU's time."""

    def can_write(self, config: PretrainedConfig) -> bool:
        """Whether `write` supports this configuration; any other model is traced by torch."""
        return True

    @abstractmethod
    def exact_in_batches(self, config: PretrainedConfig) -> bool:
        """Whether an int8 file gives a text the same logits alone and in a batch, bit by bit."""

    @abstractmethod
    def inputs(self, config: PretrainedConfig) -> tuple[str, ...]:
        """Return the names of the graph's inputs, each int64 (B, T)."""

    @abstractmethod
    def write(self, model: Any, w: GraphWriter) -> None:
        """Write the model from its inputs to logits (B, C), for any B and T.

        Args:
            model: The classifier.
            w: A writer with the model's inputs. It decides about the arithmetic of products.
        """

    @abstractmethod
    def fake_quantize(self, model: Any, scheme: QuantScheme) -> None:
        """Replace the layers of a model, in place, by layers that round as the int8 file does."""

    @abstractmethod
    def read_states(
        self, model: Any, batch: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, HiddenStates]:
        """Return logits (B, C) and the hidden states that quantization-aware tuning compares."""

    def float_attention_products(self, config: PretrainedConfig) -> int:
        """Return how many products of two activations the int8 file computes in float."""
        return 0

    def product_divisor(self, name: str, config: PretrainedConfig) -> float:
        """Return the number by which the file divides the result of a Linear layer."""
        return 1.0
