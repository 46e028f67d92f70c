"""The BiLSTM student of Tang et al. 2019, "Distilling Task-Specific Knowledge from BERT into Simple Neural Networks"."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput


class BiLstmModelConfig(PretrainedConfig):
    """Sizes of a BiLSTM student; `pair` says whether it reads two texts."""

    model_type = "kdedge-bilstm"

    def __init__(
        self,
        vocab_size: int = 30522,
        embedding_dim: int = 300,
        hidden_size: int = 150,
        head_size: int = 200,
        dropout: float = 0.2,
        pair: bool = False,
        pad_token_id: int = 0,
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.embedding_dim = embedding_dim
        self.hidden_size = hidden_size
        self.head_size = head_size
        self.dropout = dropout
        self.pair = pair
        super().__init__(pad_token_id=pad_token_id, **kwargs)


class BiLstmForSequenceClassification(PreTrainedModel):
    """One bidirectional LSTM layer, its two final states, a ReLU layer, logits.

    A pair goes through the same LSTM one text after the other and meets as `[u; v; |u - v|; u * v]`.
    Padding never enters the LSTM, so an answer does not depend on it.
    """

    config_class = BiLstmModelConfig
    base_model_prefix = "bilstm"

    def __init__(self, config: BiLstmModelConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(
            config.vocab_size, config.embedding_dim, padding_idx=config.pad_token_id
        )
        self.lstm = nn.LSTM(
            config.embedding_dim, config.hidden_size, batch_first=True, bidirectional=True
        )
        self.dropout = nn.Dropout(config.dropout)
        self.dense = nn.Linear(config.hidden_size * (8 if config.pair else 2), config.head_size)
        self.classifier = nn.Linear(config.head_size, config.num_labels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """PyTorch's own initial values: of word embeddings a standard deviation of 1."""
        if isinstance(module, nn.Embedding | nn.Linear | nn.LSTM):
            module.reset_parameters()

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
        **_: Any,
    ) -> SequenceClassifierOutput:
        """Logits (B, C) from input_ids, attention_mask and, for pairs, token_type_ids (B, T), padded on the right."""
        if self.config.pair:
            if token_type_ids is None:
                raise ValueError("a pair BiLSTM tells its two texts apart by token_type_ids")
            first = (attention_mask * (token_type_ids == 0)).sum(1)
            second = (attention_mask * (token_type_ids == 1)).sum(1)
            u = self._read(input_ids, first)
            v = self._read(_shift_left(input_ids, first), second)
            features = torch.cat([u, v, (u - v).abs(), u * v], dim=1)  # (B, 8H)
        else:
            features = self._read(input_ids, attention_mask.sum(1))  # (B, 2H)
        hidden = torch.relu(self.dense(self.dropout(features)))
        return SequenceClassifierOutput(logits=self.classifier(self.dropout(hidden)))

    def _read(self, input_ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Final forward and backward states (B, 2H) over the first `lengths` tokens of each row."""
        vectors = self.dropout(self.embedding(input_ids))
        lengths = lengths.clamp(min=1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(
            vectors, lengths, batch_first=True, enforce_sorted=False
        )
        _, (state, _) = self.lstm(packed)
        return torch.cat([state[0], state[1]], dim=1)


def _shift_left(input_ids: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
    """Row i moved left by `by[i]` tokens; the places that come free repeat the last token and are never read."""
    length = input_ids.shape[1]
    places = torch.arange(length, device=input_ids.device)[None, :] + by[:, None]
    return input_ids.gather(1, places.clamp(max=length - 1))
