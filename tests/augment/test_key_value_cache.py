"""The key-value cache gets its memory once, and texts stay those of transformers' cache."""

from __future__ import annotations

from typing import Any

import factories
import pytest
import torch
from torch.overrides import TorchFunctionMode
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
)
from transformers.cache_utils import Cache

from kdedge.augment import sampling
from kdedge.augment.generator import Generator
from kdedge.augment.sampling import sample

VOCABULARY = 40
LENGTH = 30
LAYERS = 2
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
}


def language_model(kind: str) -> PreTrainedModel:
    torch.manual_seed(0)
    if kind == "llama":
        return LlamaForCausalLM(LlamaConfig(**SIZES)).eval()
    if kind == "sliding window":
        return MistralForCausalLM(MistralConfig(**SIZES, sliding_window=5)).eval()
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=LENGTH,
        n_embd=24,
        n_head=2,
        n_layer=LAYERS,
        initializer_range=0.2,
    )
    return GPT2LMHeadModel(config).eval()


def texts_of(model: PreTrainedModel, seed: int = 0, **settings: Any) -> list[list[int]]:
    generator = Generator(model, factories.tokenizer(), 1, 2)
    prompts = [[generator.start, 3 + i] for i in range(16)]
    torch.manual_seed(seed)
    settings = {"top_p": 0.95, "temperature": 1.0, "precision": None, "interval": 4} | settings
    return sample(generator, prompts, max_length=LENGTH, **settings)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "sliding window"])
@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_the_texts_are_those_of_the_cache_of_transformers(
    kind: str, precision: torch.dtype | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = language_model(kind)
    found = [texts_of(model, seed, precision=precision) for seed in range(3)]
    assert found[0] != found[1] and len({len(text) for text in found[0]}) > 1
    monkeypatch.setattr(sampling, "reserve", lambda cache, capacity: None)
    assert found == [texts_of(model, seed, precision=precision) for seed in range(3)]


class Concatenations(TorchFunctionMode):
    """Counts concatenations: the cache of transformers needs two per layer and token."""

    count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.cat
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("reserved", [True, False])
def test_memory_is_given_once_and_earlier_tokens_are_not_copied(
    reserved: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = language_model("gpt2")
    addresses: list[tuple[int, ...]] = []

    def look(model: Any, args: Any, inputs: dict[str, Any], output: Any) -> None:
        cache: Cache = output.past_key_values
        addresses.append(tuple(layer.keys.data_ptr() for layer in cache.layers))

    model.register_forward_hook(look, with_kwargs=True)
    if not reserved:
        monkeypatch.setattr(sampling, "reserve", lambda cache, capacity: None)
    with Concatenations() as calls:
        texts = texts_of(model)
    assert len({len(text) for text in texts}) > 3, "rows leave the batch"
    after_prompt = addresses[1:]
    assert len(after_prompt) > 10
    if reserved:
        assert len(set(after_prompt)) == 1
        assert calls.count == 2 * LAYERS, "the pass over the prompt, before memory is reserved"
    else:
        assert len(set(after_prompt)) > 1
        assert calls.count == 2 * LAYERS * len(addresses), "the test sees what it forbids"
