"""Gates: what may not pass does not, and is counted."""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny

from kdedge.augment import teacher_filters as judge
from kdedge.augment.filters import TextFilter, balanced, confident, writes_spaces
from kdedge.augment.source import AugmentedText
from kdedge.augment.teacher_filters import check_teacher_filters, teacher_filter
from kdedge.errors import UsageError
from kdedge.recipe import FilterConfig, GenerateConfig, RulesConfig
from kdedge.transfer.texts import TransferTexts, collect_texts, no_labels


def sieve(
    filters: FilterConfig | None = None,
    perplexity: tuple[float, float] | None = None,
    pair: bool = False,
) -> TextFilter:
    return TextFilter.of(
        filters or FilterConfig(), tiny.pair_task() if pair else tiny.single_task(), perplexity
    )


@pytest.mark.parametrize("role", ["validation", "test"])
def test_a_held_out_text_cannot_come_in_by_any_disguise(role: str) -> None:
    task = tiny.single_task()
    secret = max(getattr(task, role).texts, key=len)
    gate = sieve(FilterConfig(shortest=1, longest=99))
    disguises = [
        secret,
        secret.upper(),
        secret + " !",
        "so " + secret,
        secret.replace("the ", "a ", 1),
        " ".join(secret.split()[:-1]),
    ]
    wide = "".join(chr(ord(one) + 0xFEE0) if "a" <= one <= "z" else one for one in secret)
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
    assert not any(gate.admit(AugmentedText(text, None, 0), "generate") for text in disguises)
    assert gate.rejected["generate", "held out"] == len(disguises)


def test_either_side_of_a_held_out_pair_may_recur_but_not_both() -> None:
    task = tiny.pair_task()
    gate = sieve(pair=True)
    first, second = task.test.texts[0], task.test.pairs[0]
    assert not gate.admit(AugmentedText(first, second, 0), "rule")
    assert gate.rejected["rule", "held out"] == 1
    assert (
        not gate.admit(AugmentedText(second, first, 0), "rule")
        and gate.rejected["rule", "held out"] == 2
    ), "nor with its sides exchanged"
    assert gate.admit(
        AugmentedText(
            first, "zebras queue by quiet jetties while brown foxes jump over lazy dogs", 0
        ),
        "rule",
    )


def test_training_texts_and_their_near_copies_count_as_seen() -> None:
    task, gate = tiny.single_task(), sieve()
    longest = max(task.train.texts, key=len)
    assert (
        not gate.admit(AugmentedText(longest.title(), None, 0), "rule")
        and gate.rejected["rule", "duplicate"] == 1
    )
    assert (
        not gate.admit(AugmentedText(longest + ".", None, 0), "rule")
        and gate.rejected["rule", "near duplicate"] == 1
    )
    new = "a cold camera and a clever script was warm"
    assert gate.admit(AugmentedText(new, None, 0), "replace")
    assert (
        not gate.admit(AugmentedText(new, None, 0), "rule")
        and gate.rejected["rule", "duplicate"] == 2
    )


def test_lengths_stay_inside_those_of_the_training_texts() -> None:
    gate = sieve()
    assert (gate.shortest, gate.longest) == (5, 13)
    assert not gate.admit(AugmentedText("great", None, 0), "rule")
    assert not gate.admit(AugmentedText("great " * 14, None, 0), "rule")
    assert gate.rejected["rule", "length"] == 2
    assert sieve(FilterConfig(shortest=1)).admit(AugmentedText("great", None, 0), "rule")


def test_a_length_that_no_text_can_have_is_told() -> None:
    with pytest.raises(UsageError, match="no text can pass the length gate"):
        sieve(FilterConfig(shortest=1000))


def test_a_band_of_perplexity_may_be_told_by_its_upper_end() -> None:
    assert FilterConfig(perplexity=0.9).perplexity == (0.0, 0.9) and FilterConfig(
        perplexity=(0.05, 0.95)
    ).perplexity == (0.05, 0.95)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="lower end lies above"):
        FilterConfig(perplexity=(0.9, 0.1))


def test_lengths_of_a_language_without_spaces_are_characters() -> None:
    assert not writes_spaces(("这部电影非常好看我很喜欢", "剧情无聊"))
    assert writes_spaces(("this film is good", "dull"))


def test_what_surprises_its_own_generator_is_refused() -> None:
    gate = sieve(perplexity=(0.5, 2.0))
    assert not gate.admit(
        AugmentedText("a warm script and the dull cast was moving", None, 0, 2.5), "generate"
    )
    assert not gate.admit(
        AugmentedText("a warm script and the dull cast was moving", None, 0, 0.4), "generate"
    ), "learned by heart, or one word over and over"
    assert gate.rejected["generate", "perplexity"] == 2
    assert gate.admit(
        AugmentedText("a warm script and the dull cast was moving", None, 0, 1.5), "generate"
    )


def test_confidence_band() -> None:
    chances = np.array([[0.5, 0.5], [0.7, 0.3], [0.05, 0.95]])
    assert confident(chances.max(1), (0.6, 0.9)).tolist() == [False, True, False]


def test_balance_caps_a_label_at_its_multiple_of_the_gold_share() -> None:
    labelled = np.array([0] * 50 + [1] * 40 + [2] * 10)
    made = np.array([2] * 60 + [0] * 40)
    kept = balanced(made, labelled, 3.0)
    assert kept[:60].sum() == 30 and kept[:30].all(), (
        "label 2 may have three times 10 % of 100, the first ones"
    )
    assert kept[60:].all()


def test_a_judge_never_drops_gold_texts_and_counts_the_rest() -> None:
    task = tiny.single_task()
    made = TransferTexts.of(
        ("x one", "x two", "x three"), None, ("rule",) * 3, no_labels(3, "classification", 2)
    )
    texts = collect_texts(task, made)
    logits = np.zeros((len(texts), 2), np.float32)  # the teacher is unsure of everything
    logits[-1] = (9, -9)
    verdict = teacher_filter(FilterConfig(confidence=(0.9, 1.0), balance=None), task, 32)(
        texts, np.array_split(logits, 3)
    )
    assert verdict.kept[: len(task.train)].all() and verdict.kept[-3:].tolist() == [
        False,
        False,
        True,
    ]
    assert verdict.rejected == {"confidence": 2}


def test_a_second_teacher_computes_in_the_precision_that_the_first_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    class Second:
        def predict_logits(self, texts: object, pairs: object, *, precision: str) -> np.ndarray:
            asked.append(precision)
            return np.array([[1.0, 0.0], [0.0, 1.0]])

    monkeypatch.setattr(judge, "load_teacher", lambda *_: Second())
    texts = TransferTexts.of(
        ("x one", "x two"), None, ("rule",) * 2, no_labels(2, "classification", 2)
    )
    said = [np.array([[2.0, 0.0], [2.0, 0.0]], np.float16)]
    verdict = teacher_filter(
        FilterConfig(agree_with="another", balance=None), tiny.single_task(), 32, "fp32"
    )(texts, said)
    assert (
        asked == ["fp32"]
        and verdict.kept.tolist() == [True, False]
        and verdict.rejected == {"second teacher": 1}
    )


def test_a_regression_has_no_classes_to_judge_by() -> None:
    task = tiny.single_task()
    task = replace(task, spec=replace(task.spec, kind="regression"))
    texts = TransferTexts.of(("x",), None, ("rule",), no_labels(1, "regression", 1))
    assert teacher_filter(FilterConfig(confidence=(0.9, 1.0)), task, 32)(
        texts, [np.zeros((1, 1), np.float16)]
    ).kept.all()


def test_gates_that_cannot_be_asked_are_refused(tmp_path: Path) -> None:
    spec = tiny.single_task().spec
    for filters in (FilterConfig(confidence=(0.9, 1.0)), FilterConfig(agree_with=str(tmp_path))):
        with pytest.raises(UsageError, match="asks for a class"):
            check_teacher_filters(filters, replace(spec, kind="multilabel"))
    tiny.bert().bert.save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="no classifier of this task"):
        check_teacher_filters(FilterConfig(agree_with=str(tmp_path)), spec)
    tiny.bert().save_pretrained(tmp_path)
    check_teacher_filters(FilterConfig(agree_with=str(tmp_path)), spec)


@pytest.mark.parametrize(
    "section, wrong, says",
    [
        (FilterConfig, {"confidence": (0.9, 0.1)}, "lower end"),
        (FilterConfig, {"shortest": 50, "longest": 3}, "more than longest"),
        (RulesConfig, {"mask": 0.6, "exchange": 0.6}, "add up to more than 1"),
        (GenerateConfig, {"prompts": []}, "prompts"),
    ],
)
def test_settings_that_let_nothing_through_are_refused(
    section: type, wrong: dict[str, object], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        section(**wrong)
