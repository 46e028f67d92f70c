"""Texts become the tokens that transformers gives, without its slower objects."""

from __future__ import annotations

import factories
import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from kdedge.nn import tokenization
from kdedge.nn.batching import Encoded
from kdedge.nn.ragged import RaggedArray
from kdedge.nn.tokenization import encode

TEXTS = ["the film is good", "", "bad " * 40, "a plot, and a cast!", "was\nit GOOD? 12"]

PAIRS = ["the cast was bad", "good", "the end " * 30, "", "é the plot"]


def by_transformers(
    tokenizer: PreTrainedTokenizerFast, pairs: list[str] | None, max_length: int
) -> dict[str, list[list[int]]]:
    found = tokenizer(TEXTS, pairs, truncation=True, max_length=max_length)
    tokenizer.backend_tokenizer.no_truncation()
    return dict(found)


def lists(found: Encoded) -> dict[str, list[list[int]]]:
    return {name: list(rows) for name, rows in found.tokens.items()}


@pytest.mark.parametrize("pairs", [None, PAIRS])
@pytest.mark.parametrize("max_length", [6, 128])
@pytest.mark.parametrize("side", ["right", "left"])
def test_tokens_are_those_of_transformers(
    pairs: list[str] | None, max_length: int, side: str
) -> None:
    tokenizer = factories.tokenizer()
    tokenizer.truncation_side = side
    found = lists(encode(tokenizer, TEXTS, pairs, max_length))
    assert found == by_transformers(tokenizer, pairs, max_length)
    assert max(map(len, found["input_ids"])) <= max_length
    assert tokenizer.backend_tokenizer.truncation is None


def test_a_model_gets_the_inputs_that_its_tokenizer_names() -> None:
    tokenizer = factories.tokenizer()
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    assert list(encode(tokenizer, TEXTS, None, 32).tokens) == ["input_ids", "attention_mask"]


def test_settings_of_an_earlier_call_change_nothing() -> None:
    tokenizer = factories.tokenizer()
    expected = lists(encode(tokenizer, TEXTS, None, 16))
    tokenizer.backend_tokenizer.enable_padding(length=128)
    tokenizer.backend_tokenizer.encode_special_tokens = True
    assert lists(encode(tokenizer, TEXTS, None, 16)) == expected


@pytest.mark.parametrize("split", [True, False])
def test_special_tokens_in_a_text_are_split_if_the_tokenizer_says_so(split: bool) -> None:
    tokenizer = factories.tokenizer()
    tokenizer.split_special_tokens = split
    (row,) = encode(tokenizer, ["[MASK] film"], None, 16).tokens["input_ids"]
    assert (tokenizer.mask_token_id in row) == (not split)


def test_an_error_leaves_no_truncation_behind() -> None:
    tokenizer = factories.tokenizer()
    with pytest.raises(TypeError):
        encode(tokenizer, ["a", None], None, 16)  # type: ignore[list-item]
    assert tokenizer.backend_tokenizer.truncation is None


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = factories.tokenizer()
    whole = lists(encode(tokenizer, TEXTS, PAIRS, 32, labels=np.arange(5)))
    monkeypatch.setattr(tokenization, "BLOCK", 2)
    found = encode(tokenizer, TEXTS, PAIRS, 32, labels=np.arange(5))
    assert lists(found) == whole
    assert found.columns["labels"].tolist() == [0, 1, 2, 3, 4]


def test_no_texts_have_no_tokens() -> None:
    found = encode(factories.tokenizer(), [], None, 32)
    assert len(found) == 0 and isinstance(found.tokens["input_ids"], RaggedArray)
