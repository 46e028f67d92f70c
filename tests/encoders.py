"""Tiny classifiers of several types, with random weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers import (
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    MPNetConfig,
    MPNetForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

SIZES = {
    "hidden_size": 24,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 66,
    "num_labels": 2,
    "initializer_range": 0.3,
}


def mpnet(vocabulary: int) -> PreTrainedModel:
    model = MPNetForSequenceClassification(MPNetConfig(vocab_size=vocabulary, **SIZES))
    torch.nn.init.normal_(model.mpnet.encoder.relative_attention_bias.weight, std=1.0)
    return model


def roberta(vocabulary: int) -> PreTrainedModel:
    config = RobertaConfig(vocab_size=vocabulary, pad_token_id=0, type_vocab_size=1, **SIZES)
    return RobertaForSequenceClassification(config)


def xlm_roberta(vocabulary: int) -> PreTrainedModel:
    config = XLMRobertaConfig(vocab_size=vocabulary, pad_token_id=1, type_vocab_size=1, **SIZES)
    return XLMRobertaForSequenceClassification(config)


def distilbert(vocabulary: int) -> PreTrainedModel:
    config = DistilBertConfig(
        vocab_size=vocabulary,
        dim=24,
        n_layers=4,
        n_heads=2,
        hidden_dim=48,
        max_position_embeddings=66,
        initializer_range=0.3,
    )
    return DistilBertForSequenceClassification(config)


def electra(vocabulary: int) -> PreTrainedModel:
    config = ElectraConfig(vocab_size=vocabulary, embedding_size=24, **SIZES)
    return ElectraForSequenceClassification(config)


def projected_electra(vocabulary: int) -> PreTrainedModel:
    config = ElectraConfig(vocab_size=vocabulary, embedding_size=12, **SIZES)
    return ElectraForSequenceClassification(config)


ENCODERS: dict[str, Callable[[int], PreTrainedModel]] = {
    "mpnet": mpnet,
    "roberta": roberta,
    "xlm_roberta": xlm_roberta,
    "distilbert": distilbert,
    "electra": electra,
    "projected_electra": projected_electra,
}


def encoder(name: str, vocabulary: int = 200) -> PreTrainedModel:
    """Make a classifier whose biases and norms are random, too."""
    torch.manual_seed(5)
    model = ENCODERS[name](vocabulary)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()
