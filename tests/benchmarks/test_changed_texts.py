"""Changed texts: the same for every subject, and the share of answers that change with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from kdedge.benchmarks.equivalence.robustness import measure_robustness, too_slow
from kdedge.benchmarks.equivalence.text_changes import CHANGES, changed
from kdedge.benchmarks.examples import Examples
from kdedge.benchmarks.row import Row
from kdedge.benchmarks.subjects import Runner, Subject
from reports import timings

from kdedge.run.progress import SILENT
from kdedge.runtime.spec import TaskSpec

TEXT = "Profits of the Bank rose sharply, but its shares fell after a warning about next year"
SPEC = TaskSpec("toy", "classification", ("a", "b"), "accuracy", pair=False)


# Texts


def test_typos_swap_neighbours_inside_words() -> None:
    found = changed("typos", TEXT, seed=0, index=3)
    pairs = list(zip(TEXT.split(" "), found.split(" "), strict=True))
    different = [(old, new) for old, new in pairs if old != new]
    assert 1 <= len(different) <= 2, "one of every ten words"
    for old, new in different:
        places = [i for i in range(len(old)) if old[i] != new[i]]
        assert places == [places[0], places[0] + 1] and places[0] > 0
        assert Counter(old) == Counter(new)


@pytest.mark.parametrize("text", ["", "a", "of a b", "  ", "abc cd\nef", "1234 a_b_c"])
def test_texts_without_long_words_have_no_typos(text: str) -> None:
    assert changed("typos", text, 0, 0) == text


def test_casing_and_truncation() -> None:
    assert changed("casing", TEXT, 0, 0) == TEXT.upper()
    half = changed("truncation", TEXT, 0, 0)
    assert TEXT.startswith(half) and len(half.split()) == 8 and len(TEXT.split()) == 16
    assert changed("truncation", "word", 0, 0) == "wo"
    assert changed("truncation", "", 0, 0) == ""


def test_a_seed_decides_the_change() -> None:
    texts = [[changed("typos", TEXT, seed, index) for index in range(20)] for seed in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]
    assert len(set(texts[0])) > 5, "texts get different typos"


# Answers


def examples(count: int) -> Examples:
    """Texts of many lengths, every fourth one with a word in another case."""
    generator = np.random.default_rng(0)
    texts = []
    for number in range(count):
        words = ["word"] * int(generator.integers(1, 30))
        texts.append(f"{'Upper' if number % 4 == 0 else 'lower'} {' '.join(words)}")
    return Examples(texts)


def subject(name: str, form: Any, decide: Any, precision: str = "fp32") -> tuple[Row, Subject]:
    """A subject whose label is a function of the text."""

    def run(texts: Sequence[str]) -> np.ndarray:
        return np.eye(2)[[int(decide(text)) for text in texts]]

    provider = "torch cpu" if form == "torch" else "CPUExecutionProvider"
    row = Row(name, "model", form, precision, provider, single=timings(1e-3))
    runner = Runner(lambda texts, pairs: list(texts), run)
    return row, Subject(name, "model", form, precision, provider, runner=runner)


def measure(pairs: list[tuple[Row, Subject]], texts: Examples, spec: TaskSpec = SPEC) -> Any:
    return measure_robustness(spec, pairs, texts, seed=0, progress=SILENT)


def test_the_share_of_changed_answers_is_that_of_a_loop() -> None:
    texts = examples(100)

    def is_long(text: str) -> bool:
        return len(text) > 60

    found = measure([subject("student", "onnx", is_long)], texts)
    (values,) = found.values()
    assert [value.change for value in values] == list(CHANGES)
    for value in values:
        expected = 0
        for index, text in enumerate(texts.texts):
            expected += is_long(text) != is_long(changed(value.change, text, 0, index))
        assert value.texts == 100
        assert value.changed == expected / 100
        assert value.low is not None and value.low <= value.changed <= value.high
    assert values[0].changed == values[1].changed == 0 < values[2].changed


def test_casing_changes_a_classifier_that_reads_it() -> None:
    found = measure([subject("student", "onnx", lambda text: text[:5].isupper())], examples(60))
    (values,) = found.values()
    assert [value.changed for value in values] == [0, 1, 0]


def test_a_number_moves_by_its_mean_absolute_change() -> None:
    spec = TaskSpec("toy", "regression", ("score",), "pearson", pair=False)
    texts = examples(60)
    row, _ = subject("student", "onnx", bool)
    runner = Runner(lambda texts, _: texts, lambda texts: np.array([[len(t)] for t in texts]))
    found = measure([(row, Subject("student", "model", "onnx", runner=runner))], texts, spec)
    (values,) = found.values()
    cut = [len(text) - len(changed("truncation", text, 0, 0)) for text in texts.texts]
    assert values[2].changed == pytest.approx(np.mean(cut))
    assert values[2].low is None


def test_the_teacher_in_torch_answers_only_without_a_file() -> None:
    torch = subject("teacher", "torch", bool)
    onnx = subject("teacher", "onnx", bool)
    student = subject("student", "torch", bool)
    assert list(measure([torch, student], examples(60))) == [torch[1].key]
    assert list(measure([torch, onnx, student], examples(60))) == [onnx[1].key]


def test_few_texts_and_slow_subjects_are_left_out() -> None:
    pair = subject("student", "onnx", bool)
    assert measure([pair], examples(49)) == {}
    slow = (Row("slow", "model", "onnx", "fp32", single=timings(1.0)), pair[1])
    assert measure([slow], examples(60)) == {}
    assert too_slow([pair, slow]) == ["slow onnx fp32"]
    torch = Row("teacher", "model", "torch", "fp32", "torch cpu", single=timings(1.0))
    teacher = subject("teacher", "onnx", bool)
    assert too_slow([(torch, teacher[1])]) == ["teacher torch fp32"]
    assert too_slow([(torch, teacher[1]), teacher]) == [], "its file answers instead"
