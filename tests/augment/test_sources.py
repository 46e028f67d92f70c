"""Each source by itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import factories
import numpy as np
import pytest
import torch
from tokenizers import ByteLevelBPETokenizer, Tokenizer, models
from tokenizers.processors import TemplateProcessing
from transformers import BertForMaskedLM, BertModel, PreTrainedTokenizerFast

from kdedge.augment.pool import PoolSource, build_pool, read_pool
from kdedge.augment.replace import MaskedGuesses, Neighbours, ReplaceSource, whole_words
from kdedge.augment.rules import RuleSource
from kdedge.augment.source import AugmentedText
from kdedge.augment.sources import build_sources
from kdedge.augment.word_classes import WordClass, WordClasses, induce_classes
from kdedge.data.task import Split
from kdedge.errors import DataError, UsageError
from kdedge.nn.text_model import TextClassifier
from kdedge.recipe import (
    DataConfig,
    PoolConfig,
    ReplaceConfig,
    RulesConfig,
)
from kdedge.transfer.texts import collect_texts, no_labels

ROWS = np.arange(96)
NO_CLASSES = WordClasses((), {})


def new_rng() -> np.random.Generator:
    return np.random.default_rng(0)


def split(*texts: str) -> Split:
    return Split(texts, None, np.zeros(len(texts), np.int64))


def test_words_of_similar_use_fall_into_one_class() -> None:
    texts = factories.single_task(400).train.texts
    classes = induce_classes(texts, num_classes=8)
    opinions = [classes.class_of[word] for word in (*factories.GOOD, *factories.BAD)]
    things = [classes.class_of[word] for word in factories.THINGS]
    assert not set(opinions) & set(things), "`the THING was OPINION`: their neighbours differ"


def test_frequent_words_are_drawn_more_often_and_never_the_word_itself() -> None:
    words = ("film", "plot", "cast")
    word_class = WordClass(words, np.array([0.5, 0.9, 1.0]))
    classes = WordClasses((word_class,), dict.fromkeys(words, 0))
    rng = new_rng()
    drawn = [classes.sample_other("film", rng) for _ in range(2000)]
    assert set(drawn) == {"plot", "cast"}
    assert drawn.count("plot") / drawn.count("cast") == pytest.approx(4.0, rel=0.25)
    assert classes.sample_other("Film", new_rng()) in ("Plot", "Cast")
    assert classes.sample_other("unknown", new_rng()) is None


def test_rules_apply_with_their_probabilities() -> None:
    text = " ".join(f"w{i}" for i in range(20))
    rules = RuleSource(
        RulesConfig(mask=0.3, exchange=0.0, window=0.0), split(text), NO_CLASSES, "[MASK]"
    )
    rng = new_rng()
    rewritten = [rules.rewrite(text, rng).split() for _ in range(400)]
    assert all(len(words) == 20 for words in rewritten)
    assert np.mean([words.count("[MASK]") for words in rewritten]) == pytest.approx(6.0, abs=0.5)
    windows = RuleSource(
        RulesConfig(mask=0, exchange=0, window=1.0, longest_window=5),
        split(text),
        NO_CLASSES,
        None,
    )
    rng = new_rng()
    cut = [windows.rewrite(text, rng) for _ in range(200)]
    assert {len(part.split()) for part in cut} == {1, 2, 3, 4, 5} and all(
        part in text for part in cut
    )
    for mask in (None, "[MASK]"):
        dropped = RuleSource(
            RulesConfig(mask=1.0, exchange=0.0), split(text), NO_CLASSES, mask
        ).produce(np.array([0]), new_rng())
        assert dropped == [], "a text without a word is dropped"


def test_rules_rewrite_the_texts_of_a_pair_in_turn() -> None:
    train = factories.pair_task().train
    made = RuleSource(
        RulesConfig(mask=0.5, exchange=0, window=0), train, NO_CLASSES, "[MASK]"
    ).produce(ROWS, new_rng())
    for i, text in enumerate(made):
        first, second = text.text == train.texts[text.row], text.pair == train.pairs[text.row]
        assert (first, second) in {
            0: [(False, True)],
            1: [(True, False)],
            2: [(False, False), (True, False), (False, True)],
        }[i % 3]


def test_replacement_uses_the_nearest_words_of_the_matrix() -> None:
    tokenizer = factories.tokenizer()
    matrix = np.eye(len(tokenizer), 400, dtype=np.float32)
    ids = tokenizer.get_vocab()
    matrix[ids["good"]] = matrix[ids["great"]] + 0.1 * matrix[ids["lovely"]]
    neighbours = Neighbours(tokenizer, matrix, 2)
    neighbours.learn(["good"])
    assert neighbours.known["good"] == ("great", "lovely")
    source = ReplaceSource(
        ReplaceConfig(probability=1.0, candidates=2), split("good 12 good"), neighbours
    )
    words = [text.text.split() for text in source.produce(np.zeros(50, np.int64), new_rng())]
    assert {row[0] for row in words} == {"great", "lovely"} and all(row[1] == "12" for row in words)


def test_masked_guesses_are_the_best_words_of_the_model() -> None:
    torch.manual_seed(0)
    config = factories.bert().config
    tokenizer, model = factories.tokenizer(), BertForMaskedLM(config).eval()
    text, second = "the film was good 42", "a plot is dull"
    guesses = MaskedGuesses(model, tokenizer, 3, 48).predict(text, second)
    assert sorted(guesses) == [0, 4, 9, 13], "42 is two tokens; the second text is context"
    ids = tokenizer(text, second)["input_ids"]
    position = 1 + text.split().index("good")
    ids[position] = tokenizer.mask_token_id
    types = tokenizer(text, second)["token_type_ids"]
    scores = model(input_ids=torch.tensor([ids]), token_type_ids=torch.tensor([types])).logits[
        0, position
    ]
    order = [
        token
        for token in tokenizer.convert_ids_to_tokens(scores.argsort(descending=True).tolist())
        if token and token.isalpha() and token != "good"
    ]
    assert guesses[13] == tuple(order[:3])


def test_a_space_that_belongs_to_a_token_is_no_part_of_the_word() -> None:
    """ModernBERT's tokenizer counts the space before a word as a part of it."""
    tokenizer = byte_level()
    model = BertForMaskedLM(factories.bert(vocabulary=len(tokenizer)).config).eval()
    text = "the film was good"
    offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    assert (3, 8) in offsets, "the space belongs to the token"
    guesses = MaskedGuesses(model, tokenizer, 3, 48).predict(text, None)
    assert sorted(guesses) == [0, 4, 9, 13]
    assert "film" not in guesses[4]


def byte_level() -> PreTrainedTokenizerFast:
    """A tokenizer of GPT-2's kind with the special tokens of BERT."""
    inner = ByteLevelBPETokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    inner.train_from_iterator(
        factories.sentences(40, 1)[0], vocab_size=600, special_tokens=special, show_progress=False
    )
    inner._tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad", "unk", "cls", "sep", "mask"), special, strict=True))
    tokens = {f"{name}_token": token for name, token in names.items()}
    return PreTrainedTokenizerFast(tokenizer_object=inner._tokenizer, **tokens)


def test_marks_of_other_vocabularies_are_letters_in_a_wordpiece_vocabulary() -> None:
    vocabulary = {"[PAD]": 0, "[UNK]": 1, "film": 2, "Ġ": 3, "▁": 4}
    inner = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="[UNK]"))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]"
    )
    assert whole_words(tokenizer)[0] == ["film", "Ġ"]


@pytest.mark.parametrize(
    "kind, model_name, has_guesses",
    [
        (BertForMaskedLM, None, True),
        (BertForMaskedLM, "neighbours", False),
        (BertModel, None, False),
        (BertModel, "masked", True),
    ],
)
def test_the_masked_language_model_is_the_named_one_or_the_teachers_checkpoint(
    tmp_path: Path, kind: type, model_name: str | None, has_guesses: bool
) -> None:
    tokenizer = factories.tokenizer()
    for name, model_class in (("encoder", kind), ("masked", BertForMaskedLM)):
        model_class(factories.bert().config).save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    document = factories.write_data_and_teacher(tmp_path / "run") | {
        "student": [factories.tinybert_config()],
        "teacher": {"model": str(tmp_path / "encoder"), "fine_tune": True},
    }
    model = {"model": str(tmp_path / model_name) if model_name == "masked" else model_name}
    recipe, task = (
        factories.make_recipe(document, augment={"size": 1.0, "replace": model}),
        factories.single_task(),
    )
    built = build_sources(
        recipe, task, TextClassifier(factories.bert().eval(), tokenizer, 32), "hash", tmp_path
    )
    (source,) = built.sources
    assert isinstance(source, ReplaceSource)
    assert (source.guesses is not None) == has_guesses
    assert ("masked language model" in built.inputs) == has_guesses
    made = source.produce(np.arange(20), new_rng())
    assert len(made) == 20 and sum(text.text != task.train.texts[text.row] for text in made) > 15


def test_a_model_that_cannot_predict_masked_words_is_an_error(tmp_path: Path) -> None:
    BertModel(factories.bert().config).save_pretrained(tmp_path / "encoder")
    factories.tokenizer().save_pretrained(tmp_path / "encoder")
    document = factories.write_data_and_teacher(tmp_path / "run") | {
        "student": [factories.tinybert_config()]
    }
    recipe = factories.make_recipe(
        document, augment={"size": 1.0, "replace": {"model": str(tmp_path / "encoder")}}
    )
    with pytest.raises(UsageError, match="no head that predicts them"):
        build_sources(
            recipe,
            factories.single_task(),
            TextClassifier(factories.bert().eval(), factories.tokenizer(), 32),
            "hash",
            tmp_path,
        )


def test_augmented_texts_follow_the_labelled_ones_without_a_label() -> None:
    task = factories.pair_task()
    augmented = collect_texts(task).take(np.array([5, 2]))
    augmented = type(augmented)(
        augmented.texts, augmented.pairs, ("rules", "pool"), no_labels(2, "classification", 2)
    )
    both = collect_texts(task, augmented)
    assert both.texts[-2:] == (task.train.texts[5], task.train.texts[2]) and both.pairs[-2:] == (
        task.train.pairs[5],
        task.train.pairs[2],
    )
    assert both.labels[-2:].tolist() == [-1, -1] and both.labelled.tolist() == list(range(96))
    assert np.isnan(no_labels(2, "multilabel", 3)).all() and no_labels(
        2, "regression", 1
    ).shape == (2,)


def test_a_pool_is_read_and_checked_like_the_data(tmp_path: Path) -> None:
    file = tmp_path / "pool.csv"
    file.write_text("text,other\none two three,x\nfour five six,y\n")
    pool = read_pool(file, PoolConfig(file=str(file)), DataConfig(source="x", first_words=2))
    assert pool.produce(np.array([1, 0]), new_rng()) == [
        AugmentedText("four five", None, -1),
        AugmentedText("one two", None, -1),
    ]
    file.write_text("text\nfine\n\n,\n")
    with pytest.raises(DataError, match=r"pool\.csv:4"):
        read_pool(file, PoolConfig(file=str(file)), DataConfig(source="x"))
    with pytest.raises(UsageError, match="pair"):
        read_pool(file, PoolConfig(file=str(file)), DataConfig(source="x", pair="second"))


def test_a_pool_of_lines_needs_no_columns(tmp_path: Path) -> None:
    file = tmp_path / "pool.txt"
    file.write_text("one, two\nthree\tfour\n", encoding="utf-8")
    single = read_pool(file, PoolConfig(file=str(file)), DataConfig(source="x"))
    assert single.texts == ("one, two", "three\tfour")
    file.write_text("one\ttwo\n", encoding="utf-8")
    config = PoolConfig(file=str(file), text="first", pair="second")
    pairs = read_pool(file, config, DataConfig(source="x", pair="second"))
    assert (pairs.texts, pairs.pairs) == (("one",), ("two",))


def test_a_pool_is_a_file_or_the_texts_beyond_the_limit() -> None:
    for keys in ({}, {"file": "pool.csv", "beyond_limit": True}):
        with pytest.raises(ValueError, match="either file or beyond_limit"):
            PoolConfig.model_validate(keys)
    task, data = factories.single_task(), DataConfig(source="x", limit=4)
    config = PoolConfig(beyond_limit=True)
    with pytest.raises(UsageError, match=r"beyond data\.limit"):
        build_pool(config, data, task)
    others = task.train.take([5, 2])
    pool = build_pool(config, data, replace(task, beyond_limit=others))
    assert pool.texts == others.texts
    assert pool.content_hash() != PoolSource(others.texts[:1], None).content_hash()
