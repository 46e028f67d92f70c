"""Filters reject what they should, and count it."""

from __future__ import annotations

import unicodedata
from dataclasses import replace

import factories
import numpy as np
import pytest

from kdedge.augment.filters import TextFilter, writes_spaces
from kdedge.augment.source import AugmentedText
from kdedge.augment.teacher_filters import (
    check_teacher_filters,
    select_balanced,
    teacher_filter,
    within,
)
from kdedge.errors import UsageError
from kdedge.recipe import FilterConfig, GenerateConfig, RulesConfig
from kdedge.transfer.texts import TransferTexts, collect_texts, no_labels


def make_filter(
    filters: FilterConfig | None = None,
    nll_range: tuple[float, float] | None = None,
    pair: bool = False,
) -> TextFilter:
    task = factories.pair_task() if pair else factories.single_task()
    return TextFilter.for_task(filters or FilterConfig(), task, nll_range)


@pytest.mark.parametrize("role", ["validation", "test"])
@pytest.mark.parametrize("pair", [False, True])
def test_a_cleaned_copy_of_a_held_out_text_is_rejected(role: str, *, pair: bool) -> None:
    task = factories.pair_task() if pair else factories.single_task()
    split = getattr(task, role)
    link = "https://example.org/one/two?three=four&five=six#seven-eight-nine"
    linked = replace(split, texts=tuple(f"{text} {link}" for text in split.texts))
    task = replace(task, **{role: linked})
    for steps, expected in (((), None), (("urls", "spaces"), "held out")):
        filters = FilterConfig(shortest=1, longest=99)
        text_filter = TextFilter.for_task(filters, task, clean=steps)
        cleaned = AugmentedText(split.texts[0], split.pairs and split.pairs[0], 0)
        assert text_filter._rejection(cleaned) == expected


@pytest.mark.parametrize("role", ["validation", "test"])
def test_a_disguised_held_out_text_is_rejected(role: str) -> None:
    task = factories.single_task()
    secret = max(getattr(task, role).texts, key=len)
    text_filter = make_filter(FilterConfig(shortest=1, longest=99))
    disguises = [
        secret,
        secret.upper(),
        secret + " !",
        "so " + secret,
        secret.replace("the ", "a ", 1),
        " ".join(secret.split()[:-1]),
    ]
    wide = "".join(
        chr(ord(letter) + 0xFEE0) if "a" <= letter <= "z" else letter for letter in secret
    )
    accents = unicodedata.normalize("NFC", secret.replace("e", "e\u0301").replace("a", "a\u0308"))
    disguises += [
        wide,
        accents,
        "\u00ad".join(secret),
        secret.replace("o", "o\u200b"),
        secret.replace(" ", "_"),
    ]
    disguises += [
        f"{secret} and then everybody went home for supper by the late train",
        f"as my uncle never tired of saying, {secret}, or nearly",
    ]
    assert not any(
        text_filter.accept(AugmentedText(text, None, 0), "generate") for text in disguises
    )
    assert text_filter.rejected["generate", "held out"] == len(disguises)


def test_one_text_of_a_held_out_pair_may_recur_but_not_both() -> None:
    task = factories.pair_task()
    text_filter = make_filter(pair=True)
    first, second = task.test.texts[0], task.test.pairs[0]
    assert not text_filter.accept(AugmentedText(first, second, 0), "rules")
    assert text_filter.rejected["rules", "held out"] == 1
    assert (
        not text_filter.accept(AugmentedText(second, first, 0), "rules")
        and text_filter.rejected["rules", "held out"] == 2
    ), "also in the other order"
    assert text_filter.accept(
        AugmentedText(
            first, "zebras queue by quiet jetties while brown foxes jump over lazy dogs", 0
        ),
        "rules",
    )


def test_training_texts_and_their_near_duplicates_count_as_seen() -> None:
    task, text_filter = factories.single_task(), make_filter()
    longest = max(task.train.texts, key=len)
    assert (
        not text_filter.accept(AugmentedText(longest.title(), None, 0), "rules")
        and text_filter.rejected["rules", "duplicate"] == 1
    )
    assert (
        not text_filter.accept(AugmentedText(longest + ".", None, 0), "rules")
        and text_filter.rejected["rules", "near duplicate"] == 1
    )
    new = "a cold camera and a clever script was warm"
    assert text_filter.accept(AugmentedText(new, None, 0), "replace")
    assert (
        not text_filter.accept(AugmentedText(new, None, 0), "rules")
        and text_filter.rejected["rules", "duplicate"] == 2
    )


def test_lengths_stay_in_the_range_of_the_training_texts() -> None:
    text_filter = make_filter()
    assert (text_filter.lengths.shortest, text_filter.lengths.longest) == (5, 13)
    assert not text_filter.accept(AugmentedText("great", None, 0), "rules")
    assert not text_filter.accept(AugmentedText("great " * 14, None, 0), "rules")
    assert text_filter.rejected["rules", "length"] == 2
    assert make_filter(FilterConfig(shortest=1)).accept(AugmentedText("great", None, 0), "rules")


def test_an_empty_length_range_is_an_error() -> None:
    with pytest.raises(UsageError, match="no text can pass the length filter"):
        make_filter(FilterConfig(shortest=1000))


def test_one_number_is_the_upper_quantile_of_perplexity() -> None:
    assert FilterConfig(perplexity=0.9).perplexity == (0.0, 0.9) and FilterConfig(
        perplexity=(0.05, 0.95)
    ).perplexity == (0.05, 0.95)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="lower end lies above"):
        FilterConfig(perplexity=(0.9, 0.1))


def test_lengths_count_characters_in_a_language_without_spaces() -> None:
    assert not writes_spaces(("这部电影非常好看我很喜欢", "剧情无聊"))
    assert writes_spaces(("this film is good", "dull"))


def test_texts_that_are_too_likely_or_too_unlikely_are_rejected() -> None:
    text_filter = make_filter(nll_range=(0.5, 2.0))
    assert not text_filter.accept(
        AugmentedText("a warm script and the dull cast was moving", None, 0, 2.5), "generate"
    )
    assert not text_filter.accept(
        AugmentedText("a warm script and the dull cast was moving", None, 0, 0.4), "generate"
    ), "a memorised text, or one word repeated"
    assert text_filter.rejected["generate", "perplexity"] == 2
    assert text_filter.accept(
        AugmentedText("a warm script and the dull cast was moving", None, 0, 1.5), "generate"
    )


def test_confidence_range() -> None:
    probabilities = np.array([[0.5, 0.5], [0.7, 0.3], [0.05, 0.95]])
    assert within(probabilities.max(1), 0.6, 0.9).tolist() == [False, True, False]


def test_balance_limits_a_label_to_a_multiple_of_its_training_share() -> None:
    train_labels = np.array([0] * 50 + [1] * 40 + [2] * 10)
    predicted = np.array([2] * 60 + [0] * 40)
    selected = select_balanced(predicted, train_labels, 3.0)
    assert selected[:60].sum() == 30 and selected[:30].all(), (
        "label 2 may have 3 x 10 % of 100 texts: the first 30"
    )
    assert selected[60:].all()


def test_labelled_texts_are_never_rejected() -> None:
    task = factories.single_task()
    augmented = TransferTexts.of(
        ("x one", "x two", "x three"), None, ("rules",) * 3, no_labels(3, "classification", 2)
    )
    texts = collect_texts(task, augmented)
    logits = np.zeros(
        (len(texts), 2), np.float32
    )  # the teacher is unsure about every text but the last
    logits[-1] = (9, -9)
    result = teacher_filter(FilterConfig(confidence=(0.9, 1.0), balance=1000.0), task)(
        texts, np.array_split(logits, 3)
    )
    assert result.kept[: len(task.train)].all() and result.kept[-3:].tolist() == [
        False,
        False,
        True,
    ]
    assert result.rejected == {"confidence": 2, "balance": 0}


def test_a_regression_has_no_teacher_filters() -> None:
    task = factories.single_task()
    task = replace(task, spec=replace(task.spec, kind="regression"))
    texts = TransferTexts.of(("x",), None, ("rules",), no_labels(1, "regression", 1))
    assert teacher_filter(FilterConfig(confidence=(0.9, 1.0)), task)(
        texts, [np.zeros((1, 1), np.float16)]
    ).kept.all()


@pytest.mark.parametrize("key, value", [("confidence", (0.9, 1.0)), ("balance", 2.0)])
def test_filters_that_do_not_fit_the_task_are_an_error(key: str, value: object) -> None:
    spec = factories.single_task().spec
    filters = FilterConfig.model_validate({key: value})
    check_teacher_filters(filters, spec)
    with pytest.raises(UsageError, match=f"filters.{key} needs a classification task"):
        check_teacher_filters(filters, replace(spec, kind="multilabel"))
    check_teacher_filters(FilterConfig(), replace(spec, kind="multilabel"))


@pytest.mark.parametrize(
    "section, wrong, message",
    [
        (FilterConfig, {"confidence": (0.9, 0.1)}, "lower end"),
        (FilterConfig, {"shortest": 50, "longest": 3}, "more than longest"),
        (RulesConfig, {"mask": 0.6, "exchange": 0.6}, "add up to more than 1"),
        (GenerateConfig, {"prompts": []}, "prompts"),
    ],
)
def test_settings_that_reject_every_text_are_an_error(
    section: type, wrong: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        section(**wrong)
