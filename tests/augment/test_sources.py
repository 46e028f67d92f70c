"""Making texts: each source by itself, then the stage that asks them all."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tiny
import tinyrun
import torch
from transformers import BertForMaskedLM, BertModel

from kdedge.augment.filters import TextFilter
from kdedge.augment.make import make_texts, read_augmented_texts
from kdedge.augment.pool import read_pool
from kdedge.augment.replace import MaskedGuesses, Neighbours, ReplaceSource
from kdedge.augment.rules import RuleSource
from kdedge.augment.source import AugmentedText
from kdedge.augment.sources import build_sources
from kdedge.augment.word_classes import WordClasses, induce_classes
from kdedge.data.task import Split
from kdedge.errors import DataError, UsageError
from kdedge.io.arrow import map_table
from kdedge.nn.text_model import TextClassifier
from kdedge.recipe import (
    AugmentConfig,
    DataConfig,
    FilterConfig,
    PoolConfig,
    ReplaceConfig,
    RulesConfig,
)
from kdedge.run.stage import read_stage
from kdedge.transfer.texts import collect_texts, no_labels

ROWS = np.arange(96)


def chance(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def split(*texts: str) -> Split:
    return Split(texts, None, np.zeros(len(texts), np.int64))


def test_words_used_alike_fall_into_one_class() -> None:
    texts = tiny.single_task(400).train.texts
    classes = induce_classes(texts, classes=8)
    opinions = [classes.of[word] for word in (*tiny.GOOD, *tiny.BAD)]
    things = [classes.of[word] for word in tiny.THINGS]
    assert not set(opinions) & set(things), (
        "`the THING was OPINION` tells the two apart by their neighbours alone"
    )


def test_a_frequent_word_is_drawn_more_often_and_the_word_itself_never() -> None:
    classes = WordClasses(
        ((("film", "plot", "cast"), np.array([0.5, 0.9, 1.0])),), {"film": 0, "plot": 0, "cast": 0}
    )
    drawn = [classes.other("film", draw) for draw in [chance()] for _ in range(2000)]
    assert set(drawn) == {"plot", "cast"}
    assert drawn.count("plot") / drawn.count("cast") == pytest.approx(4.0, rel=0.25)
    assert (
        classes.other("Film", chance()) in ("Plot", "Cast")
        and classes.other("unknown", chance()) is None
    )


def test_rules_do_what_they_say_as_often_as_they_say() -> None:
    text = " ".join(f"w{i}" for i in range(20))
    rules = RuleSource(
        RulesConfig(mask=0.3, exchange=0.0, window=0.0), split(text), WordClasses((), {}), "[MASK]"
    )
    made = [rules.altered(text, draw).split() for draw in [chance()] for _ in range(400)]
    assert all(len(words) == 20 for words in made)
    assert np.mean([words.count("[MASK]") for words in made]) == pytest.approx(6.0, abs=0.5)
    windows = RuleSource(
        RulesConfig(mask=0, exchange=0, window=1.0, longest_window=5),
        split(text),
        WordClasses((), {}),
        None,
    )
    cut = [windows.altered(text, draw) for draw in [chance()] for _ in range(200)]
    assert {len(part.split()) for part in cut} == {1, 2, 3, 4, 5} and all(
        part in text for part in cut
    )
    for mask in (None, "[MASK]"):
        dropped = RuleSource(
            RulesConfig(mask=1.0, exchange=0.0), split(text), WordClasses((), {}), mask
        ).make(np.array([0]), chance())
        assert dropped == [], "a text of which nothing is left is none"


def test_rules_keep_pairs_together_and_take_their_sides_in_turn() -> None:
    train = tiny.pair_task().train
    made = RuleSource(
        RulesConfig(mask=0.5, exchange=0, window=0), train, WordClasses((), {}), "[MASK]"
    ).make(ROWS, chance())
    for i, text in enumerate(made):
        first, second = text.text == train.texts[text.row], text.pair == train.pairs[text.row]
        assert (first, second) in {
            0: [(False, True)],
            1: [(True, False)],
            2: [(False, False), (True, False), (False, True)],
        }[i % 3]


def test_replacement_takes_the_nearest_words_of_the_matrix() -> None:
    tokenizer = tiny.tokenizer()
    matrix = np.eye(len(tokenizer), 400, dtype=np.float32)
    ids = tokenizer.get_vocab()
    matrix[ids["good"]] = matrix[ids["great"]] + 0.1 * matrix[ids["lovely"]]
    neighbours = Neighbours(tokenizer, matrix, 2)
    neighbours.learn(["good"])
    assert neighbours.known["good"] == ("great", "lovely")
    source = ReplaceSource(
        ReplaceConfig(probability=1.0, candidates=2), split("good 12 good"), neighbours
    )
    words = [text.text.split() for text in source.make(np.zeros(50, np.int64), chance())]
    assert {row[0] for row in words} == {"great", "lovely"} and all(row[1] == "12" for row in words)


def test_masked_guesses_are_those_of_the_model_at_that_word() -> None:
    torch.manual_seed(0)
    config = tiny.bert().config
    tokenizer, model = tiny.tokenizer(), BertForMaskedLM(config).eval()
    text, second = "the film was good 42", "a plot is dull"
    guesses = MaskedGuesses(model, tokenizer, 3, 48).at(text, second)
    assert sorted(guesses) == [0, 4, 9, 13], (
        "each word of one piece by its first character; 42 is two pieces, the second text is only read"
    )
    ids = tokenizer(text, second)["input_ids"]
    place = 1 + text.split().index("good")
    ids[place] = tokenizer.mask_token_id
    types = tokenizer(text, second)["token_type_ids"]
    scores = model(input_ids=torch.tensor([ids]), token_type_ids=torch.tensor([types])).logits[
        0, place
    ]
    order = [
        token
        for token in tokenizer.convert_ids_to_tokens(scores.argsort(descending=True).tolist())
        if token and token.isalpha() and token != "good"
    ]
    assert guesses[13] == tuple(order[:3])


@pytest.mark.parametrize(
    "kind, named, guesses",
    [
        (BertForMaskedLM, None, True),
        (BertForMaskedLM, "neighbours", False),
        (BertModel, None, False),
        (BertModel, "masked", True),
    ],
)
def test_masked_words_are_guessed_where_the_teacher_began_from_a_model_that_can(
    tmp_path: Path, kind: type, named: str | None, guesses: bool
) -> None:
    tokenizer = tiny.tokenizer()
    for name, one in (("encoder", kind), ("masked", BertForMaskedLM)):
        one(tiny.bert().config).save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    document = tinyrun.prepare(tmp_path / "run") | {
        "student": [tinyrun.tinybert()],
        "teacher": {"model": str(tmp_path / "encoder"), "fine_tune": True},
    }
    model = {"model": str(tmp_path / named) if named == "masked" else named}
    recipe, task = (
        tinyrun.recipe(document, augment={"size": 1.0, "replace": model}),
        tiny.single_task(),
    )
    shop = build_sources(
        recipe, task, TextClassifier(tiny.bert().eval(), tokenizer, 32), "hash", tmp_path
    )
    (source,) = shop.sources
    assert isinstance(source, ReplaceSource) and (source.guesses is not None) == guesses == (
        "masked language model" in shop.inputs
    )
    made = source.make(np.arange(20), chance())
    assert len(made) == 20 and sum(text.text != task.train.texts[text.row] for text in made) > 15


def test_a_named_model_that_cannot_guess_is_told_of(tmp_path: Path) -> None:
    BertModel(tiny.bert().config).save_pretrained(tmp_path / "encoder")
    tiny.tokenizer().save_pretrained(tmp_path / "encoder")
    document = tinyrun.prepare(tmp_path / "run") | {"student": [tinyrun.tinybert()]}
    recipe = tinyrun.recipe(
        document, augment={"size": 1.0, "replace": {"model": str(tmp_path / "encoder")}}
    )
    with pytest.raises(UsageError, match="no head for it"):
        build_sources(
            recipe,
            tiny.single_task(),
            TextClassifier(tiny.bert().eval(), tiny.tokenizer(), 32),
            "hash",
            tmp_path,
        )


@dataclass(frozen=True)
class Counting:
    """A source that breaks down after some shards."""

    breaks_after: int = 10**9
    origin = "rule"
    renewable = True
    starts = 96

    def make(self, rows: np.ndarray, chance: np.random.Generator) -> list[AugmentedText]:
        if len(MADE) >= self.breaks_after:
            raise KeyboardInterrupt
        MADE.append(rows)
        return [
            AugmentedText(
                f"a new {tiny.THINGS[i % 10]} {chance.integers(10**9)} was fine here",
                None,
                int(row),
            )
            for i, row in enumerate(rows)
        ]


MADE: list[np.ndarray] = []


def build(folder: Path, *sources: object, size: float = 2.0, **settings: object):
    MADE.clear()
    task = tiny.single_task()
    recipe = AugmentConfig(size=size, shard_size=16, rules=RulesConfig())
    filters = TextFilter.of(FilterConfig(near=1.0), task)
    return make_texts(
        recipe, task, list(sources), filters, folder / "augment", {"seed": 0}, **settings
    )


def test_cut_off_and_resumed_is_the_same_set(tmp_path: Path) -> None:
    whole = build(tmp_path / "whole", Counting())
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "cut", Counting(breaks_after=5))
    assert not (tmp_path / "cut" / "augment").exists()
    resumed = build(tmp_path / "cut", Counting())
    assert len(MADE) == 12 - 5, "the five finished shards are used again"
    assert resumed.texts == whole.texts
    first, second = (
        (tmp_path / way / "augment" / "texts.arrow").read_bytes() for way in ("whole", "cut")
    )
    assert first == second
    assert read_stage(tmp_path / "whole" / "augment") == read_stage(tmp_path / "cut" / "augment")


def test_every_training_text_is_started_from_before_any_comes_again(tmp_path: Path) -> None:
    build(tmp_path, Counting())
    rows = np.concatenate(MADE)
    assert np.bincount(rows[:96]).tolist() == [1] * 96 and np.bincount(rows).tolist() == [2] * 96


def test_weights_say_where_texts_are_made(tmp_path: Path) -> None:
    weights = np.zeros(96)
    weights[[3, 7]] = (1.0, 3.0)
    build(tmp_path, Counting(), weights=weights)
    rows = np.concatenate(MADE)
    assert set(rows) == {3, 7} and (rows == 7).mean() == pytest.approx(0.75, abs=0.1)


def test_every_beginning_of_the_set_holds_all_sources_alike(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Other(Counting):
        origin = "replace"
        renewable = True

        def make(self, rows: np.ndarray, chance: np.random.Generator) -> list[AugmentedText]:
            return [
                AugmentedText(
                    f"another {tiny.THINGS[i % 10]} {chance.integers(10**9)} is here now",
                    None,
                    int(row),
                )
                for i, row in enumerate(rows)
            ]

    made = build(tmp_path, Counting(), Other())
    assert len(made) == 192
    for n in (10, 50, 192):
        assert made.origins[:n].count("rule") == n // 2


def test_what_refuses_everything_ends_and_says_so(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Same(Counting):
        def make(self, rows: np.ndarray, chance: np.random.Generator) -> list[AugmentedText]:
            return [AugmentedText("always the same new film here", None, int(row)) for row in rows]

    made = build(tmp_path, Same())
    counts = read_stage(tmp_path / "augment")["result"]["sources"]["rule"]
    assert (
        len(made) == 1
        and counts["kept"] == 1
        and counts["rejected"] == {"duplicate": counts["made"] - 1}
    )
    table = map_table(tmp_path / "augment" / "texts.arrow")
    assert table.column("origin").to_pylist() == ["rule"]
    assert read_augmented_texts(tmp_path / "augment", tiny.single_task()).texts == made.texts


def test_a_half_written_shard_is_made_again(tmp_path: Path) -> None:
    whole = build(tmp_path / "whole", Counting())
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "cut", Counting(breaks_after=2))
    part = tmp_path / "cut" / "augment.part"
    shutil.copy(part / "rule-00001.parquet", part / "rule-00002.part")
    assert build(tmp_path / "cut", Counting()).texts == whole.texts


def test_made_texts_follow_the_gold_ones_without_a_label() -> None:
    task = tiny.pair_task()
    made = collect_texts(task).take(np.array([5, 2]))
    made = type(made)(made.texts, made.pairs, ("rule", "pool"), no_labels(2, "classification", 2))
    both = collect_texts(task, made)
    assert both.texts[-2:] == (task.train.texts[5], task.train.texts[2]) and both.pairs[-2:] == (
        task.train.pairs[5],
        task.train.pairs[2],
    )
    assert both.labels[-2:].tolist() == [-1, -1] and both.labelled.tolist() == list(range(96))
    assert np.isnan(no_labels(2, "multilabel", 3)).all() and no_labels(
        2, "regression", 1
    ).shape == (2,)


def test_a_pool_is_read_like_the_data(tmp_path: Path) -> None:
    file = tmp_path / "pool.csv"
    file.write_text("text,other\none two three,x\nfour five six,y\n")
    pool = read_pool(PoolConfig(file=str(file)), DataConfig(source="x", first_words=2))
    assert pool.make(np.array([1, 0]), chance()) == [
        AugmentedText("four five", None, -1),
        AugmentedText("one two", None, -1),
    ]
    file.write_text("text\nfine\n\n,\n")
    with pytest.raises(DataError, match=r"pool\.csv:4"):
        read_pool(PoolConfig(file=str(file)), DataConfig(source="x"))
    with pytest.raises(UsageError, match="pair"):
        read_pool(PoolConfig(file=str(file)), DataConfig(source="x", pair="second"))
