"""The BiLSTM student (Tang et al. 2019), registered with transformers' Auto classes.

"Distilling Task-Specific Knowledge from BERT into Simple Neural Networks", arXiv:1903.12136.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from kdedge.errors import UsageError
from kdedge.nn.labels import label_config
from kdedge.recipe import BiLstmConfig
from kdedge.runtime.spec import TaskSpec
from kdedge.students.kind import StudentKind


class BiLstmModelConfig(PretrainedConfig):
    """Configuration of a BiLSTM student; `pair` is true if it classifies pairs of texts."""

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
    """A classifier: one bidirectional LSTM layer, its two final states, a ReLU layer, logits.

    The same LSTM reads both texts of a pair separately; the head sees `[u; v; |u - v|; u * v]`.
    Padding never enters the LSTM, so the logits do not depend on it.
    """

    config_class = BiLstmModelConfig
    base_model_prefix = "bilstm"
    _input_embed_layer = "embedding"

    def __init__(self, config: BiLstmModelConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(
            config.vocab_size, config.embedding_dim, padding_idx=config.pad_token_id
        )
        self.lstm = nn.LSTM(
            config.embedding_dim, config.hidden_size, batch_first=True, bidirectional=True
        )
        self.dropout = nn.Dropout(config.dropout)
        features = 8 if config.pair else 2
        self.dense = nn.Linear(config.hidden_size * features, config.head_size)
        self.classifier = nn.Linear(config.head_size, config.num_labels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Use PyTorch's initial values: word embeddings have a standard deviation of 1."""
        if isinstance(module, nn.Embedding | nn.Linear | nn.LSTM):
            module.reset_parameters()

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        return_dict: bool | None = None,
    ) -> SequenceClassifierOutput | tuple[torch.Tensor, ...]:
        """Compute logits, and the loss if labels are given.

        Args:
            input_ids: Token ids, padded on the right. *Shape:* (batch_size, seq_len)
            attention_mask: 1 for real tokens, 0 for padding. Default: all tokens are real.
            token_type_ids: 0 for the first text, 1 for the second. Required for pairs.
            labels: Classes (batch_size,), or floats as `config.problem_type` needs them.
            return_dict: False returns a tuple.
        """
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        if self.config.pair:
            features = self._pair_features(input_ids, attention_mask, token_type_ids)  # (B, 8H)
        else:
            features = self._final_states(input_ids, attention_mask.sum(1))  # (B, 2H)
        hidden = torch.relu(self.dense(self.dropout(features)))
        logits = self.classifier(self.dropout(hidden))
        loss = None
        if labels is not None:
            loss = self.loss_function(labels, logits, self.config)
        output = SequenceClassifierOutput(loss=loss, logits=logits)
        return output.to_tuple() if return_dict is False else output

    def _pair_features(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None,
    ) -> torch.Tensor:
        if token_type_ids is None:
            raise ValueError("a BiLSTM on pairs needs token_type_ids to separate the two texts")
        first = (attention_mask * (token_type_ids == 0)).sum(1)
        second = (attention_mask * (token_type_ids == 1)).sum(1)
        u = self._final_states(input_ids, first)
        v = self._final_states(_shift_left(input_ids, first), second)
        return torch.cat([u, v, (u - v).abs(), u * v], dim=1)

    def _final_states(self, input_ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return final forward and backward states (B, 2H) of the first `lengths` tokens."""
        vectors = self.dropout(self.embedding(input_ids))
        lengths = lengths.clamp(min=1)
        if vectors.is_cuda:
            # A fake-quantized LSTM has its own function for padded texts.
            own = getattr(self.lstm, "padded_final_states", None)
            states: torch.Tensor = (
                own(vectors, lengths) if own else padded_final_states(self.lstm, vectors, lengths)
            )
            return states
        lengths = lengths.cpu()
        packed = nn.utils.rnn.pack_padded_sequence(
            vectors, lengths, batch_first=True, enforce_sorted=False
        )
        with _lstm_precision():
            _, (state, _) = self.lstm(packed)
        return torch.cat([state[0], state[1]], dim=1)


def _lstm_precision() -> AbstractContextManager[Any]:
    """Switch off fp16 autocast on a CPU: torch has no fp16 LSTM for CPUs."""
    is_fp16 = torch.get_autocast_dtype("cpu") is torch.float16
    if torch.is_autocast_enabled("cpu") and is_fp16:
        return torch.autocast("cpu", enabled=False)
    return nullcontext()


def padded_final_states(
    lstm: nn.LSTM, vectors: torch.Tensor, lengths: torch.Tensor
) -> torch.Tensor:
    """Return the final states (B, 2H) of a bidirectional LSTM without packing.

    Packing needs the lengths on the CPU, which then waits for the GPU at every step. Here each
    direction runs over padded texts, the backward one from each text's last token on. Padding comes
    last, so it does not change the state after the last token.

    Args:
        vectors: *Shape:* (B, T, E)
        lengths: Number of tokens of each text, at least 1. *Shape:* (B,)
    """
    rows = torch.arange(len(vectors), device=vectors.device)
    steps = torch.arange(vectors.shape[1], device=vectors.device)
    reverse = (lengths[:, None] - 1 - steps).clamp(min=0)  # (B, T)
    readings = (vectors, vectors[rows[:, None], reverse])
    zeros = vectors.new_zeros(1, len(vectors), lstm.hidden_size)
    states = []
    for direction, inputs in enumerate(readings):
        weights: list[torch.Tensor] = [*lstm.all_weights[direction]]
        output = torch.lstm(
            inputs, (zeros, zeros), weights, True, 1, 0.0, lstm.training, False, True
        )[0]  # (B, T, H)
        states.append(output[rows, lengths - 1])
    return torch.cat(states, dim=1)


def _shift_left(input_ids: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
    """Shift row i left by `by[i]` tokens; the end repeats the last token and is not used."""
    length = input_ids.shape[1]
    positions = torch.arange(length, device=input_ids.device)[None, :] + by[:, None]
    return input_ids.gather(1, positions.clamp(max=length - 1))


AutoConfig.register(BiLstmModelConfig.model_type, BiLstmModelConfig)
AutoModel.register(BiLstmModelConfig, BiLstmForSequenceClassification)
AutoModelForSequenceClassification.register(BiLstmModelConfig, BiLstmForSequenceClassification)


class BiLstmKind(StudentKind):
    """A BiLSTM whose word embeddings are random or those of the teacher."""

    model_class: ClassVar[type[PreTrainedModel]] = BiLstmForSequenceClassification

    def build(
        self,
        config: BiLstmConfig,
        spec: TaskSpec,
        teacher: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
    ) -> BiLstmForSequenceClassification:
        if spec.pair and "token_type_ids" not in tokenizer.model_input_names:
            raise UsageError(
                "a BiLSTM on pairs needs a tokenizer with token_type_ids",
                f"{type(tokenizer).__name__} has none",
                'set student.tokenizer = "wordpiece"',
            )
        table = teacher.get_input_embeddings().weight.detach()  # (V, H of the teacher)
        model_config = BiLstmModelConfig(
            vocab_size=len(tokenizer),
            embedding_dim=config.embedding or table.shape[1],
            hidden_size=config.hidden,
            head_size=config.head,
            dropout=config.dropout,
            pair=spec.pair,
            pad_token_id=tokenizer.pad_token_id,
            **label_config(spec),
        )
        student = BiLstmForSequenceClassification(model_config)
        if config.start == "teacher":
            columns = principal_columns(table[: len(tokenizer)], model_config.embedding_dim)
            with torch.no_grad():
                student.embedding.weight[:] = columns
        return student


def principal_columns(table: torch.Tensor, width: int) -> torch.Tensor:
    """Project an embedding table onto its principal directions, scaled to standard deviation 1.

    The initial weights of an LSTM expect inputs of that scale. The values in a BERT's table are 20
    times smaller, because a LayerNorm follows.

    Args:
        table: *Shape:* (vocabulary, teacher_width)
        width: Columns of the result. At `teacher_width` the table is scaled but not projected.

    Raises:
        UsageError: If `width` is larger than the table's.
    """
    if width > table.shape[1]:
        raise UsageError(
            "a student's embeddings cannot be wider than the teacher's that they start from",
            f"{width} > {table.shape[1]}",
            "lower student.embedding",
        )
    table = table.float()  # A teacher on a GPU may have 16 bits, of which nothing is projected.
    if width < table.shape[1]:
        centred = table - table.mean(0)
        directions: torch.Tensor = torch.linalg.svd(centred.T @ centred)[2]
        table = centred @ directions[:width].T
    return table / table.std()
