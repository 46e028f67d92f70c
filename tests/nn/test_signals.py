"""Hidden states, attention scores and vectors of each type, computed again from its weights."""

from __future__ import annotations

from typing import Any

import encoders
import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from kdedge.distillation.layer_sizes import layer_sizes
from kdedge.nn.signals import ATTENTION_TYPES, read_signals
from kdedge.students.as_bert import FAMILIES

IDS = torch.tensor([[5, 9, 17, 30, 41, 6], [7, 8, 55, 60, 44, 3]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])


def heads(linear: Any, states: torch.Tensor) -> torch.Tensor:
    values = states @ linear.weight.T + linear.bias
    return values.reshape(2, 6, 2, 12).permute(0, 2, 1, 3)


def position_bias(model: Any) -> torch.Tensor:
    """The bias of near tokens, written out: |i - j| up to 7 has a bucket of its own."""
    table = model.mpnet.encoder.relative_attention_bias.weight  # (32, A)
    bias = torch.zeros(2, 6, 6)
    for i in range(6):
        for j in range(6):
            bucket = i - j if i >= j else 16 + j - i
            bias[:, i, j] = table[bucket]
    return bias


@pytest.mark.parametrize("name", list(encoders.ENCODERS))
def test_signals_are_those_of_the_modules_own_weights(name: str) -> None:
    model = encoders.encoder(name)
    batch = {"input_ids": IDS, "attention_mask": MASK}
    with torch.no_grad():
        plain = model(**batch, output_hidden_states=True)
        signals = read_signals(model, batch, layers=True)
        after = model(**batch).logits
    assert torch.allclose(signals.logits, plain.logits, atol=1e-4)
    assert torch.equal(after, model(**batch).logits), "the model is left as it was"
    assert len(signals.attention) == len(signals.vectors) == 4 and len(signals.hidden) == 5
    family = FAMILIES[model.config.model_type]
    for i, layer in enumerate(model.base_model.get_submodule(family.layers)):
        states = plain.hidden_states[i]
        assert torch.allclose(signals.hidden[i], states, atol=1e-4)
        expected = []
        for part in ("query", "key", "value"):
            linear = layer.get_submodule(family.encoder[f"attention.self.{part}"])
            expected.append(heads(linear, states))
        for mine, theirs in zip(signals.vectors[i], expected, strict=True):
            assert torch.allclose(mine, theirs, atol=1e-4)
        scores = expected[0] @ expected[1].transpose(-1, -2) / 12**0.5
        if name == "mpnet":
            scores = scores + position_bias(model)
        assert torch.allclose(signals.attention[i], scores, atol=1e-4)
    assert torch.allclose(signals.hidden[4], plain.hidden_states[4], atol=1e-4)


@pytest.mark.parametrize("name", list(encoders.ENCODERS))
def test_sizes_of_each_type_are_known(name: str) -> None:
    sizes = layer_sizes(encoders.encoder(name).config)
    assert (sizes.layers, sizes.heads, sizes.width, sizes.depth) == (4, 2, 24, 12)


def tiny_model(model_type: str, **settings: Any) -> PreTrainedModel:
    """Make a model of 2 layers with 4 heads, all other settings by their names in each type."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}
    if model_type == "distilbert":
        sizes = {"dim": 16, "n_layers": 2, "n_heads": 4}
    embedding = {"embedding_size": 16} if model_type in ("albert", "electra") else {}
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        model_type, vocab_size=70, pad_token_id=1, **sizes, **embedding, **settings
    )
    return AutoModelForSequenceClassification.from_config(config).eval()


@pytest.mark.parametrize("model_type", ATTENTION_TYPES)
def test_the_softmax_of_the_scores_is_the_models_attention(model_type: str) -> None:
    model = tiny_model(model_type)
    batch = {"input_ids": IDS, "attention_mask": torch.ones_like(MASK)}
    with torch.no_grad():
        signals = read_signals(model, batch, layers=True)
        model.set_attn_implementation("eager")
        expected = model(**batch, output_attentions=True).attentions
    assert len(signals.vectors) == len(expected) == 2
    for scores, probabilities in zip(signals.attention, expected, strict=True):
        assert torch.allclose(scores.softmax(-1), probabilities, atol=1e-5)


def test_heads_that_share_keys_and_values_are_read() -> None:
    model = tiny_model("qwen2", num_key_value_heads=2, intermediate_size=32)
    with torch.no_grad():
        batch = {"input_ids": IDS, "attention_mask": torch.ones_like(MASK)}
        signals = read_signals(model, batch, layers=True)
        plain = model(**batch, output_hidden_states=True)
    assert torch.allclose(signals.logits, plain.logits, atol=1e-5)
    assert torch.allclose(signals.hidden[-1], plain.hidden_states[-1], atol=1e-5)
    for queries, keys, values in signals.vectors:
        assert queries.shape == keys.shape == values.shape
