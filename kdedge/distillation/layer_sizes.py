"""Read the sizes of an encoder, whose names differ between architectures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from optimum.utils import NormalizedConfigManager

from kdedge.errors import UsageError


@dataclass(frozen=True)
class LayerSizes:
    """Numbers of layers and attention heads, and hidden width of an encoder.

    Attributes:
        depth: Width of one head's queries, keys and values.
    """

    layers: int
    heads: int
    width: int
    depth: int


def layer_sizes(config: Any) -> LayerSizes:
    """Return the sizes in a transformers configuration.

    Raises:
        UsageError: If the architecture has no such layers.
    """
    try:
        named = NormalizedConfigManager.get_normalized_config_class(config.model_type)(config)
        depth = getattr(config, "head_dim", None) or named.hidden_size // named.num_attention_heads
        return LayerSizes(named.num_layers, named.num_attention_heads, named.hidden_size, depth)
    except (KeyError, AttributeError) as error:
        raise UsageError(
            "layers of this architecture cannot be matched",
            f"{config.model_type}: {error}",
            "set hidden, attention and embedding weights to 0",
        ) from error
