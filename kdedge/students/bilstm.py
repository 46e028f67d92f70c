"""The BiLSTM student (Tang et al. 2019), registered with transformers' Auto classes.

"Distilling Task-Specific Knowledge from BERT into Simple Neural Networks", arXiv:1903.12136.
"""

from __future__ import annotations

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
from kdedge.students.cross_attention import CrossAttention, matching_features
from kdedge.students.kind import StudentKind
from kdedge.students.lstm_states import final_states, token_states
from kdedge.students.piece_mapping import check_vocabulary


class BiLstmModelConfig(PretrainedConfig):
    """Configuration of a BiLSTM student.

    `pair` is true if it classifies pairs of texts. `cross_attention` is true if it compares the
    texts of a pair token by token.
    """

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
        self.cross_attention: bool = kwargs.pop("cross_attention", False)
        super().__init__(pad_token_id=pad_token_id, **kwargs)


class BiLstmForSequenceClassification(PreTrainedModel):
    """A classifier: one bidirectional LSTM layer, its two final states, a ReLU layer, logits.

    The same LSTM reads both texts of a pair separately; the head sees `[u; v; |u - v|; u * v]`.
    With cross-attention, it sees what `CrossAttention` makes of the states of all tokens.
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
        width = config.hidden_size * (8 if config.pair else 2)
        if config.cross_attention:
            self.cross_attention = CrossAttention(
                2 * config.hidden_size, config.head_size, config.dropout
            )
            width = 4 * config.head_size
        self.dense = nn.Linear(width, config.head_size)
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
            features = self._pair_features(input_ids, attention_mask, token_type_ids)
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
        """Return what the head reads of a pair: (B, 8H), or (B, 4 head) with cross-attention."""
        if token_type_ids is None:
            raise ValueError("a BiLSTM on pairs needs token_type_ids to separate the two texts")
        first = (attention_mask * (token_type_ids == 0)).sum(1)
        second = (attention_mask * (token_type_ids == 1)).sum(1)
        second_ids = _shift_left(input_ids, first)
        if self.config.cross_attention:
            return self._cross_attention_features(input_ids, first, second_ids, second)
        u = self._final_states(input_ids, first)
        v = self._final_states(second_ids, second)
        return matching_features(u, v)

    def _cross_attention_features(
        self,
        first_ids: torch.Tensor,
        first: torch.Tensor,
        second_ids: torch.Tensor,
        second: torch.Tensor,
    ) -> torch.Tensor:
        """Return what the head reads of the two texts, whose numbers of tokens are given."""
        lengths = torch.cat([first, second]).clamp(min=1)
        if not lengths.is_cuda:  # A GPU would have to wait for this number.
            longest = int(lengths.max())
            first_ids, second_ids = first_ids[:, :longest], second_ids[:, :longest]
        states = torch.cat(
            [self._token_states(first_ids, first), self._token_states(second_ids, second)]
        )  # (2B, T, 2H)
        positions = torch.arange(states.shape[1], device=lengths.device)
        features: torch.Tensor = self.cross_attention(states, positions < lengths[:, None])
        return features

    def _final_states(self, input_ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return final forward and backward states (B, 2H) of the first `lengths` tokens."""
        vectors = self.dropout(self.embedding(input_ids))
        return final_states(self.lstm, vectors, lengths.clamp(min=1))

    def _token_states(self, input_ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return the states (B, T, 2H) of the first `lengths` tokens, and 0 for the others."""
        vectors = self.dropout(self.embedding(input_ids))
        return token_states(self.lstm, vectors, lengths.clamp(min=1))


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

    def check(
        self,
        config: BiLstmConfig,
        spec: TaskSpec,
        source: PretrainedConfig,
        tokenizer: PreTrainedTokenizerFast,
    ) -> None:
        if spec.pair and "token_type_ids" not in tokenizer.model_input_names:
            raise UsageError(
                "a BiLSTM on pairs needs a tokenizer with token_type_ids",
                f"{type(tokenizer).__name__} has none",
                'set student.tokenizer = "wordpiece"',
            )
        if config.cross_attention and not spec.pair:
            raise UsageError(
                "cross_attention compares the two texts of a pair",
                "the task has single texts",
                "remove student.cross_attention",
            )
        if config.start == "teacher" and config.embedding:
            # ELECTRA and ALBERT have embeddings that are narrower than their layers.
            texts = source.get_text_config()  # the model itself, unless it also reads images
            width = getattr(texts, "embedding_size", None) or texts.hidden_size
            _check_width(config.embedding, width)

    def build(
        self,
        config: BiLstmConfig,
        spec: TaskSpec,
        teacher: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
    ) -> BiLstmForSequenceClassification:
        self.check(config, spec, teacher.config, tokenizer)
        if config.start == "teacher":
            check_vocabulary(teacher.config, tokenizer)
        table = teacher.get_input_embeddings().weight.detach()  # (V, H of the teacher)
        model_config = BiLstmModelConfig(
            vocab_size=len(tokenizer),
            embedding_dim=config.embedding or table.shape[1],
            hidden_size=config.hidden,
            head_size=config.head,
            dropout=config.dropout,
            pair=spec.pair,
            cross_attention=config.cross_attention,
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
    _check_width(width, table.shape[1])
    table = table.float()  # A teacher on a GPU may have 16 bits, of which nothing is projected.
    if width < table.shape[1]:
        centred = table - table.mean(0)
        directions: torch.Tensor = torch.linalg.svd(centred.T @ centred)[2]
        table = centred @ directions[:width].T
    return table / table.std()


def _check_width(width: int, teacher_width: int) -> None:
    if width > teacher_width:
        raise UsageError(
            "a student's embeddings cannot be wider than the teacher's that they start from",
            f"{width} > {teacher_width}",
            "lower student.embedding",
        )
