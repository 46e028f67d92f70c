"""Prompts of different lengths in one batch: the texts are those of batches of one length."""

from __future__ import annotations

from typing import Any

import factories
import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, BloomConfig, PreTrainedModel

from kdedge.augment import generate
from kdedge.augment.generate import GenerateSource
from kdedge.augment.generator import Generator
from kdedge.augment.left_padding import accepts_padding
from kdedge.augment.sampling import sample
from kdedge.nn.attention_mask import DECODERS, causal_mask
from kdedge.recipe import GenerateConfig

VOCABULARY = 40
POSITIONS = 44  # also those of a GPT-2, so that a position too many is an error
END = 2
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "max_position_embeddings": POSITIONS,
    "initializer_range": 0.3,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": END,
    "pad_token_id": None,
}


def generator_of(model_type: str, **settings: Any) -> Generator:
    torch.manual_seed(0)
    windows = {"sliding_window": None} if model_type == "mistral" else {}
    config = AutoConfig.for_model(model_type, **SIZES | windows | settings)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config).eval()
    return Generator(model, factories.tokenizer(), 1, END)


def mixed_prompts(count: int = 30, longest: int = 20) -> list[list[int]]:
    """Return prompts of 1 to `longest` tokens without the token that ends a text."""
    chance = np.random.default_rng(0)
    lengths = 1 + np.arange(count) % longest
    return [[1, *chance.integers(3, VOCABULARY, length - 1).tolist()] for length in lengths]


def texts_of(generator: Generator, prompts: list[list[int]], **settings: Any) -> list[list[int]]:
    greedy = {"max_length": POSITIONS, "top_p": 1e-6, "temperature": 1.0, "precision": None}
    return sample(generator, prompts, **greedy | settings)


@pytest.mark.parametrize("model_type", DECODERS)
@pytest.mark.parametrize("interval", [1, 16])
def test_a_prompt_goes_on_as_in_a_batch_of_its_own(model_type: str, interval: int) -> None:
    generator, prompts = generator_of(model_type), mixed_prompts()
    expected = [texts_of(generator, [prompt])[0] for prompt in prompts]
    ended = sum(text[-1] == END for text in expected)
    assert 3 < ended < 27, "texts end before their limit, and at it"
    rows: list[int] = []
    generator.model.register_forward_hook(lambda *call: rows.append(len(call[2].logits)))
    assert texts_of(generator, prompts, interval=interval) == expected
    assert max(map(len, expected)) == POSITIONS
    if interval == 1:
        assert sum(rows) == sum(map(len, expected)) - sum(map(len, prompts)), "no row is idle"


@pytest.mark.parametrize("interval", [1, 16])
def test_no_text_is_longer_than_its_limit(interval: int) -> None:
    generator, prompts = generator_of("gpt2"), mixed_prompts()
    settings = {"top_p": 0.9, "temperature": 2.0, "interval": interval}
    for limit in (19, 20, 23, POSITIONS):
        texts = texts_of(generator, prompts, max_length=limit, **settings)
        for prompt, text in zip(prompts, texts, strict=True):
            assert text[: len(prompt)] == prompt and len(text) <= max(limit, len(prompt))
            assert END not in text[:-1]
            assert len(text) >= limit or text[-1] == END


@pytest.mark.parametrize("model_type", DECODERS)
@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_padding_is_harmless_in_16_bits(
    model_type: str, precision: torch.dtype, attention: str
) -> None:
    generator = generator_of(model_type, attn_implementation=attention)
    seen: list[torch.dtype] = []

    def look(_: Any, __: Any, inputs: dict[str, Any], output: Any) -> None:
        seen.append(inputs["attention_mask"].dtype)
        assert inputs["attention_mask"].dim() == 4
        assert bool(output.logits.isfinite().all()) and output.logits.shape[1] == 1
        # Also of padding, which nobody reads: weights of 0 do not hide what is not a number.
        assert all(bool(layer.values.isfinite().all()) for layer in output.past_key_values.layers)

    generator.model.register_forward_hook(look, with_kwargs=True)
    prompts = mixed_prompts()
    texts = texts_of(generator, prompts, precision=precision)
    assert set(seen) == {precision} and len(seen) > 20
    exact = texts_of(generator_of(model_type), prompts)
    begin_alike = 0
    for prompt, text, other in zip(prompts, texts, exact, strict=True):
        begin_alike += text[: len(prompt) + 2] == other[: len(prompt) + 2]
    assert begin_alike > 24


def test_a_token_attends_to_itself_and_to_real_tokens_before_it() -> None:
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    attends = causal_mask(mask, torch.float32)[:, 0] == 0
    padded = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]
    assert attends[0].int().tolist() == padded
    assert torch.equal(attends[1], torch.ones(4, 4).tril().bool())
    lowest = torch.finfo(torch.float16).min
    assert causal_mask(mask, torch.float16).unique().tolist() == [lowest, 0]


def test_a_window_and_unknown_models_keep_to_one_length() -> None:
    for model_type in DECODERS:
        assert accepts_padding(generator_of(model_type).model)
    assert not accepts_padding(generator_of("mistral", sliding_window=8).model)
    window = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}
    assert not accepts_padding(generator_of("qwen2", **window).model)
    other = BloomConfig(vocab_size=VOCABULARY, hidden_size=16, n_layer=1, n_head=2)
    assert not accepts_padding(AutoModelForCausalLM.from_config(other))


@pytest.mark.parametrize("mixes_lengths", [True, False])
def test_a_gpu_needs_few_passes_for_prompts_of_many_lengths(
    mixes_lengths: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generate, "native_precision", lambda *_: None)
    generator = generator_of("gpt2")
    recipe = GenerateConfig(batch_size=128, max_length=POSITIONS, top_p=1e-6)
    source = GenerateSource(generator, recipe, factories.single_task())
    sizes: list[tuple[int, ...]] = []

    def look(_: Any, __: Any, inputs: dict[str, Any], output: Any) -> None:
        sizes.append(tuple(inputs["input_ids"].shape))

    prompts = mixed_prompts(200)
    expected = source._continue(prompts, seed=0)
    generator.model.register_forward_hook(look, with_kwargs=True)
    monkeypatch.setattr(GenerateSource, "_mixes_lengths", mixes_lengths)
    assert source._continue(prompts, seed=0) == expected
    if mixes_lengths:
        assert [rows for rows, tokens in sizes if tokens > 1] == [128, 72]
        assert len(sizes) < 2 * POSITIONS
    else:
        assert len(sizes) > 20 * (POSITIONS - 20)
