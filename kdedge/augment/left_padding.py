"""Let prompts of different lengths share a batch: padding comes first, so that all end together.

The next tokens of all rows then have the same place in the key-value cache.
"""

from __future__ import annotations

import inspect

import torch
from transformers import PreTrainedModel

from kdedge.nn.attention_mask import DECODERS, additive_mask, causal_mask

MASK_ALIGNMENT = 8
"""On a GPU torch copies a mask in each layer if its rows do not begin at multiples of this."""

Inputs = dict[str, torch.Tensor | int]


def accepts_padding(model: PreTrainedModel) -> bool:
    """Return whether a model accepts a mask and positions, which padded prompts need.

    Not one whose tokens attend only to the last few: it would use the mask as it is.
    """
    return (
        model.config.model_type in DECODERS
        and getattr(model.config, "sliding_window", None) is None
        and "position_ids" in inspect.signature(model.forward).parameters
    )


class PaddedPrompts:
    """B prompts that are padded on the left, and what a model must know about their padding.

    The mask is ready for use, because transformers would wait for a GPU to look at another one.
    If all prompts have the same length, the model gets neither mask nor positions.

    Attributes:
        input_ids: *Shape:* (B, T)
        room: Number of tokens that the shortest prompt has room for.
        capacity: Largest number of tokens of a row, padding included.
    """

    def __init__(
        self,
        prompts: list[list[int]],
        padding: int,
        max_length: int,
        mask_type: torch.dtype,
        device: torch.device,
    ) -> None:
        """Pad the prompts.

        Args:
            prompts: Token ids.
            padding: Any token id.
            max_length: Largest number of tokens of a text, without padding.
            mask_type: Type in which the model computes attention.
        """
        lengths = [len(prompt) for prompt in prompts]
        counts = [max(lengths) - length for length in lengths]
        rows = [[padding] * count + ids for count, ids in zip(counts, prompts, strict=True)]
        self.input_ids = torch.tensor(rows, device=device)
        self.room = max_length - min(lengths)
        self.capacity = max(lengths) + self.room
        self._columns = 0  # tokens of each row that the model has read
        self._last_position = max_length - 1
        self._mask_type = mask_type
        self._is_padded = any(counts)
        self._counts = torch.tensor(counts, device=device)  # (B,)
        columns = self.capacity + -self.capacity % MASK_ALIGNMENT
        self._mask = additive_mask(self._is_token(columns), mask_type)  # (B, 1, 1, columns)

    def inputs(self, input_ids: torch.Tensor) -> Inputs:
        """Return what the model reads with the prompts (B, T), and then with each token (B, 1)."""
        start, end = self._columns, self._columns + input_ids.shape[1]
        self._columns = end
        if not self._is_padded:
            return {"input_ids": input_ids}
        mask = self._mask[..., :end]
        if start == 0:
            mask = causal_mask(self._is_token(end), self._mask_type)  # (B, 1, T, T)
        columns = torch.arange(start, end, device=input_ids.device)
        # A text that is as long as it may be goes on until somebody looks, without new positions.
        positions = (columns - self._counts[:, None]).clamp(0, self._last_position)
        return {
            "input_ids": input_ids,
            "attention_mask": mask,
            "position_ids": positions,
            "logits_to_keep": 1,  # those of all tokens of long prompts would fill the memory
        }

    def select(self, rows: torch.Tensor) -> None:
        """Keep only these rows of the batch."""
        self._counts, self._mask = self._counts[rows], self._mask[rows]

    def _is_token(self, columns: int) -> torch.Tensor:
        """Return which of the first tokens of each row are no padding: (B, columns)."""
        return torch.arange(columns, device=self._counts.device) >= self._counts[:, None]
