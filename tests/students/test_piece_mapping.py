"""Embeddings of another vocabulary: shared pieces keep theirs, other pieces get those of parts."""

from __future__ import annotations

import json

import factories
import pytest
import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import Gemma3Config, PreTrainedTokenizerFast, RobertaTokenizer

from kdedge.errors import UsageError
from kdedge.students.piece_mapping import (
    check_vocabulary,
    mapped_embeddings,
    source_pieces,
    with_vocabulary,
)
from kdedge.students.wordpiece import train_wordpiece

TEXTS = factories.sentences(60, 1)[0]


def byte_pairs() -> PreTrainedTokenizerFast:
    inner = ByteLevelBPETokenizer()
    inner.train_from_iterator(
        TEXTS,
        vocab_size=420,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        show_progress=False,
    )
    merges = [tuple(pair) for pair in json.loads(inner.to_str())["model"]["merges"]]
    return RobertaTokenizer(vocab=inner.get_vocab(), merges=merges)


def test_pieces_of_two_kinds_of_tokenizers_are_compared_by_their_text() -> None:
    old, new = byte_pairs(), factories.tokenizer()
    sources = source_pieces(old, new)
    assert sorted(sources) == sorted(new.get_vocab().values())

    def pieces(name: str) -> list[str]:
        return old.convert_ids_to_tokens(sources[new.convert_tokens_to_ids(name)])

    assert pieces("film") == ["Ġfilm"] and pieces("and") == ["Ġand"]
    assert pieces("##a") == ["a"], "a continuation has no space"
    assert "".join(pieces("clumsy")) == "Ġclumsy"
    roles = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert [pieces(role) for role in roles] == [["<pad>"], ["<unk>"], ["<s>"], ["</s>"], ["<mask>"]]


def test_a_word_that_the_teacher_splits_gets_the_mean_of_its_pieces() -> None:
    old, new = factories.tokenizer(), train_wordpiece(TEXTS, 200)
    torch.manual_seed(0)
    table = torch.randn(len(old), 6)
    rows = mapped_embeddings(table, old, new)
    compared = 0
    for piece, number in new.get_vocab().items():
        if piece in old.get_vocab() and piece not in new.all_special_tokens:
            assert torch.equal(rows[number], table[old.convert_tokens_to_ids(piece)])
        elif piece.isalnum():
            parts = old(piece, add_special_tokens=False)["input_ids"]
            assert torch.allclose(rows[number], table[parts].mean(0))
            compared += len(parts) > 1
    assert compared > 3, "the test needs words that are split"


def test_a_model_with_another_vocabulary_reads_its_tokens() -> None:
    old, new = factories.tokenizer(), train_wordpiece(TEXTS, 200)
    model = factories.bert(vocabulary=len(old)).eval()
    assert with_vocabulary(model, old, factories.tokenizer()) is model
    before = model.get_input_embeddings().weight.clone()
    other = with_vocabulary(model, old, new)
    assert other.config.vocab_size == len(new) == other.get_input_embeddings().num_embeddings
    assert torch.equal(model.get_input_embeddings().weight, before)
    text = "good film"
    assert old.tokenize(text) == new.tokenize(text) == ["good", "film"], "shared pieces"
    with torch.no_grad():
        mine = other(**new(text, return_tensors="pt")).logits
        theirs = model(**old(text, return_tensors="pt")).logits
    assert torch.allclose(mine, theirs, atol=1e-5)


def test_a_model_of_texts_and_images_has_its_vocabulary_in_the_text_config() -> None:
    tokenizer = factories.tokenizer()
    check_vocabulary(Gemma3Config(text_config={"vocab_size": len(tokenizer)}), tokenizer)
    with pytest.raises(UsageError, match="more tokens than the model has embeddings"):
        check_vocabulary(Gemma3Config(text_config={"vocab_size": len(tokenizer) - 1}), tokenizer)
