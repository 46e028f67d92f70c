"""Rewrite an encoder of another type as a BERT, so that students always start from a BERT.

| type | what a BERT computes differently |
| --- | --- |
| bert, roberta, xlm-roberta, camembert | nothing |
| distilbert | the head: tanh instead of ReLU |
| electra | the head: tanh instead of GELU; the embedding norm if embeddings are projected |
| mpnet | attention has no relative position bias |

`kdedge/students/fit_to_teacher.py` makes the differences smaller.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
)

from kdedge.errors import UsageError
from kdedge.recipe.sizes import first_position, usable_positions

TOKEN_TYPES = 2
"""A tokenizer of BERT's kind numbers the texts of a pair 0 and 1."""


@dataclass(frozen=True)
class Family:
    """The module names of one type of encoder that correspond to a BERT classifier.

    Attributes:
        encoder: Names of modules in a BERT layer -> names in a layer of this type.
        layers: Name of the list of layers.
        pooler: Name of the first of the two layers of the head.
        classifier: Name of the second one.
        differences: What a BERT computes differently from this type.
        is_encoder_exact: Whether the BERT gives the same hidden states.
    """

    encoder: dict[str, str]
    layers: str
    pooler: str = "classifier.dense"
    classifier: str = "classifier.out_proj"
    differences: tuple[str, ...] = ()
    is_encoder_exact: bool = True


BERT_LAYER = {
    "attention.self.query": "attention.self.query",
    "attention.self.key": "attention.self.key",
    "attention.self.value": "attention.self.value",
    "attention.output.dense": "attention.output.dense",
    "attention.output.LayerNorm": "attention.output.LayerNorm",
    "intermediate.dense": "intermediate.dense",
    "output.dense": "output.dense",
    "output.LayerNorm": "output.LayerNorm",
}

MPNET_LAYER = BERT_LAYER | {
    "attention.self.query": "attention.attn.q",
    "attention.self.key": "attention.attn.k",
    "attention.self.value": "attention.attn.v",
    "attention.output.dense": "attention.attn.o",
    "attention.output.LayerNorm": "attention.LayerNorm",
}

DISTILBERT_LAYER = {
    "attention.self.query": "attention.q_lin",
    "attention.self.key": "attention.k_lin",
    "attention.self.value": "attention.v_lin",
    "attention.output.dense": "attention.out_lin",
    "attention.output.LayerNorm": "sa_layer_norm",
    "intermediate.dense": "ffn.lin1",
    "output.dense": "ffn.lin2",
    "output.LayerNorm": "output_layer_norm",
}

ROBERTA = Family(BERT_LAYER, "encoder.layer")

FAMILIES = {
    "bert": Family(BERT_LAYER, "encoder.layer", "bert.pooler.dense", "classifier"),
    "roberta": ROBERTA,
    "xlm-roberta": ROBERTA,
    "camembert": ROBERTA,
    "mpnet": Family(
        MPNET_LAYER,
        "encoder.layer",
        differences=("attention has no relative position bias",),
        is_encoder_exact=False,
    ),
    "distilbert": Family(
        DISTILBERT_LAYER,
        "transformer.layer",
        "pre_classifier",
        "classifier",
        ("the head has tanh instead of ReLU",),
    ),
    "electra": Family(
        BERT_LAYER, "encoder.layer", differences=("the head has tanh instead of GELU",)
    ),
}
"""model_type -> how a model of this type is rewritten as a BERT."""


@dataclass(frozen=True)
class AsBert:
    """An encoder as a BERT.

    Attributes:
        model: The BERT; the encoder itself if it is one.
        differences: What the BERT computes differently; empty if it gives the same logits.
        is_encoder_exact: Whether it gives the same hidden states.
    """

    model: BertForSequenceClassification
    differences: tuple[str, ...] = ()
    is_encoder_exact: bool = True


def as_bert(teacher: PreTrainedModel) -> AsBert:
    """Rewrite a classifier as a BERT, with its weights.

    Raises:
        UsageError: If it is not a text classifier with an encoder of a known type.
    """
    family = family_of(teacher.config)
    if teacher.config.model_type == "bert":
        return AsBert(teacher)
    bert = BertForSequenceClassification(bert_config(teacher.config)).eval()
    source, target = teacher.base_model, bert.bert
    with torch.no_grad():
        _copy_embeddings(target.embeddings, source, first_position(teacher.config.to_dict()))
        layers = source.get_submodule(family.layers)
        for new, old in zip(target.encoder.layer, layers, strict=True):
            for name, old_name in family.encoder.items():
                new.get_submodule(name).load_state_dict(old.get_submodule(old_name).state_dict())
        pooler = teacher.get_submodule(family.pooler)
        target.pooler.dense.load_state_dict(pooler.state_dict())
        bert.classifier.load_state_dict(teacher.get_submodule(family.classifier).state_dict())
    bert.to(teacher.device)
    if not hasattr(source, "embeddings_project"):
        return AsBert(bert, family.differences, family.is_encoder_exact)
    differences = (*family.differences, "embeddings are not projected after their norm")
    return AsBert(bert, differences, is_encoder_exact=False)


def family_of(config: PretrainedConfig) -> Family:
    """Return the family of a classifier's encoder; raise UsageError if it is unknown."""
    kind = config.model_type
    family = FAMILIES.get(kind)
    if family is None:
        raise UsageError(
            "a student cannot take layers from this type of teacher",
            f"the teacher is a {kind}; types that can: {', '.join(FAMILIES)}",
            'set student.start to "scratch" or to a BERT checkpoint',
        )
    return family


def bert_config(config: Any) -> BertConfig:
    """Return the configuration of a BERT with the same sizes and outputs."""
    known = config.to_dict()
    activation = known.get("hidden_act") or known["activation"]
    head_dropout = known.get("classifier_dropout", known.get("seq_classif_dropout"))
    return BertConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        intermediate_size=known.get("intermediate_size") or known["hidden_dim"],
        hidden_act=activation,
        max_position_embeddings=usable_positions(known),
        type_vocab_size=max(TOKEN_TYPES, known.get("type_vocab_size") or 0),
        layer_norm_eps=known.get("layer_norm_eps", 1e-12),
        pad_token_id=config.pad_token_id,
        hidden_dropout_prob=known.get("hidden_dropout_prob", known.get("dropout", 0.1)),
        attention_probs_dropout_prob=known.get(
            "attention_probs_dropout_prob", known.get("attention_dropout", 0.1)
        ),
        classifier_dropout=head_dropout,
        id2label=config.id2label,
        label2id=config.label2id,
        problem_type=config.problem_type,
    )


def _copy_embeddings(target: Any, source: Any, first: int) -> None:
    """Copy embedding tables and LayerNorm; positions start at row `first` of the source.

    If the source has no token types or only one, all types get the same row.
    """
    tables = source.embeddings
    words, positions = tables.word_embeddings.weight, tables.position_embeddings.weight[first:]
    types = torch.zeros_like(words[:1])
    if hasattr(tables, "token_type_embeddings"):
        types = tables.token_type_embeddings.weight
    if len(types) < len(target.token_type_embeddings.weight):
        types = types[:1].expand(len(target.token_type_embeddings.weight), -1)
    scale, shift = tables.LayerNorm.weight, tables.LayerNorm.bias
    projection = getattr(source, "embeddings_project", None)
    if projection is not None:
        # LayerNorm divides by a number that depends on the token, so only its linear part is folded
        # into the tables.
        narrow = projection.weight * scale  # (H, E)
        narrow = narrow - narrow.mean(1, keepdim=True)
        words, positions, types = words @ narrow.T, positions @ narrow.T, types @ narrow.T
        shift = projection(shift)
        scale = torch.ones_like(shift)
    target.word_embeddings.weight.copy_(words)
    target.position_embeddings.weight.copy_(positions)
    target.token_type_embeddings.weight.copy_(types)
    target.LayerNorm.weight.copy_(scale)
    target.LayerNorm.bias.copy_(shift)


def norms_of(teacher: PreTrainedModel, layers: list[int]) -> list[Any]:
    """Return the modules whose outputs correspond to those of a BERT's LayerNorms, in order.

    Args:
        teacher: A classifier of a known type.
        layers: Numbers of its layers, counted from 1.
    """
    family = family_of(teacher.config)
    base = teacher.base_model
    norms = [getattr(base, "embeddings_project", base.embeddings.LayerNorm)]
    for number in layers:
        layer = base.get_submodule(family.layers)[number - 1]
        norms.append(layer.get_submodule(family.encoder["attention.output.LayerNorm"]))
        norms.append(layer.get_submodule(family.encoder["output.LayerNorm"]))
    return norms
