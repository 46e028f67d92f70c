"""Student tokens and teacher tokens of the same characters, in texts of all kinds."""

from __future__ import annotations

import json
from functools import cache

import factories
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import ByteLevelBPETokenizer
from transformers import PreTrainedTokenizerFast, RobertaTokenizer

from kdedge.nn.signals import Signals
from kdedge.nn.token_alignment import (
    END,
    FIRST,
    FIRST_TEXT,
    SECOND_TEXT,
    TokenSpans,
    align_text,
    averaged,
    shift_masks,
    token_spans,
)
from kdedge.students.wordpiece import train_wordpiece

TEXTS = factories.sentences(60, 1)[0]

ODD = [
    "",
    "   ",
    "Ünïcödé  naïve\tfaçade",
    "北京 🙂👩‍👩‍👧 مرحبا",
    "[MASK] <mask> </s> [SEP]",
    "\x00\u200b\ufeff a \u0301b",
    "½ ﬁlm ǅ İstanbul",
    "What's a “quote”—dash?",
]


@cache
def tokenizers() -> dict[str, PreTrainedTokenizerFast]:
    inner = ByteLevelBPETokenizer()
    inner.train_from_iterator(
        TEXTS,
        vocab_size=400,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        show_progress=False,
    )
    merges = [tuple(pair) for pair in json.loads(inner.to_str())["model"]["merges"]]
    return {
        "bytes": RobertaTokenizer(vocab=inner.get_vocab(), merges=merges),
        "words": factories.tokenizer(),
        "trained": train_wordpiece(TEXTS, 90),
    }


def spans_of(name: str, text: str, pair: str | None, length: int = 512) -> TokenSpans:
    pairs = None if pair is None else [pair]
    return token_spans(tokenizers()[name], [text], pairs, length)[0]


def by_hand(student: TokenSpans, teacher: TokenSpans, i: int) -> list[int]:
    """Compare the characters of token `i` with those of every teacher token."""
    mine = set(range(student.starts[i], student.ends[i]))
    found = []
    for j in range(len(teacher.parts)):
        theirs = set(range(teacher.starts[j], teacher.ends[j]))
        if teacher.parts[j] == student.parts[i] and mine & theirs:
            found.append(j)
    return found


@given(
    text=st.text(max_size=40),
    pair=st.none() | st.text(max_size=20),
    names=st.permutations(["bytes", "words", "trained"]),
)
@example(text=ODD[3], pair=ODD[2], names=["bytes", "words", "trained"])
@example(text=ODD[5], pair=ODD[4], names=["words", "bytes", "trained"])
@example(text=ODD[6], pair=None, names=["trained", "bytes", "words"])
@example(text="", pair="", names=["words", "bytes", "trained"])
@settings(max_examples=150)
def test_every_token_gets_the_tokens_that_share_its_characters(
    text: str, pair: str | None, names: list[str]
) -> None:
    student, teacher = spans_of(names[0], text, pair), spans_of(names[1], text, pair)
    first, end = align_text(student, teacher)
    assert (first >= 0).all() and (end > first).all() and (end <= len(teacher.parts)).all()
    for i, part in enumerate(student.parts):
        if part not in (FIRST_TEXT, SECOND_TEXT):
            assert set(teacher.parts[first[i] : end[i]]) == {part}, "marks meet marks"
            continue
        found = by_hand(student, teacher, i)
        assert set(found) <= set(range(first[i], end[i]))
        if found:
            # Tokens without characters of their own may stand between them.
            chosen = range(first[i], end[i])
            extra = [j for j in chosen if j not in found]
            assert all(teacher.starts[j] == teacher.ends[j] for j in extra)
        else:
            assert end[i] == first[i] + 1


@given(text=st.text(alphabet="abcdefg hij.,!?'", max_size=40), pair=st.none() | st.text("ab c"))
@settings(max_examples=50)
def test_equal_tokenizers_give_the_identity(text: str, pair: str | None) -> None:
    for name in ("bytes", "words"):
        spans = spans_of(name, text, pair)
        first, end = align_text(spans, spans)
        for i, part in enumerate(spans.parts):
            if part in (FIRST_TEXT, SECOND_TEXT) and spans.ends[i] > spans.starts[i]:
                assert (first[i], end[i]) == (i, i + 1)


def test_marks_between_two_texts_are_averaged() -> None:
    student, teacher = spans_of("words", "a film", "the plot"), spans_of("bytes", "a film", "plot")
    first, end = align_text(student, teacher)
    middle, last = np.flatnonzero(teacher.parts == 2), len(teacher.parts) - 1
    marks = [i for i, part in enumerate(student.parts) if part in (0, 2, 4)]
    assert len(middle) == 2, "RoBERTa parts two texts by two marks"
    expected = [(0, 1), (middle[0], middle[-1] + 1), (last, last + 1)]
    assert [(first[i], end[i]) for i in marks] == expected


def test_tokens_that_the_teacher_cut_off_get_its_last_one() -> None:
    student = spans_of("words", "good film and plot", None)
    teacher = spans_of("words", "good film and plot", None, length=4)
    first, end = align_text(student, teacher)
    assert first.tolist() == [0, 1, 2, 2, 2, 3]
    assert (end == first + 1).all()


@pytest.mark.parametrize("new", ["[MASK]", None])
def test_masks_of_another_length_do_not_move_what_follows(new: str | None) -> None:
    old = "the <mask> was <mask> good"
    teacher = shift_masks(spans_of("bytes", old, None), old, None, "<mask>", new)
    student = spans_of("words", old.replace("<mask>", new or ""), None)
    first, end = align_text(student, teacher)
    tokens = tokenizers()["bytes"].tokenize(old)
    words = tokenizers()["words"].tokenize(old.replace("<mask>", new or ""))
    chosen = {}
    for i, word in enumerate(words):
        chosen[word] = "".join(tokens[first[i + 1] - 1 : end[i + 1] - 1])
    assert chosen["good"].endswith("good") and chosen["was"].endswith("was")
    assert chosen.get("[MASK]", "<mask>") == "<mask>"


def test_states_are_averaged_over_the_teachers_tokens() -> None:
    torch.manual_seed(0)
    hidden = torch.randn(2, 4, 3)
    vectors = tuple(torch.randn(2, 2, 4, 5) for _ in range(3))
    batch = {
        "attention_mask": torch.ones(2, 4, dtype=torch.long),
        FIRST: torch.tensor([[0, 1, 3], [0, 0, 0]]),
        END: torch.tensor([[1, 3, 4], [4, 1, 0]]),
    }
    signals = averaged(Signals(torch.zeros(2, 2), (hidden,), (hidden,), (vectors,)), batch)
    assert torch.allclose(signals.hidden[0][0, 1], hidden[0, 1:3].mean(0))
    assert torch.allclose(signals.hidden[0][1, 0], hidden[1].mean(0))
    assert not signals.hidden[0][1, 2].any(), "padding is 0"
    for mine, theirs in zip(signals.vectors[0], vectors, strict=True):
        assert torch.allclose(mine[0, :, 1], theirs[0, :, 1:3].mean(1))
        assert torch.allclose(mine[0, :, 2], theirs[0, :, 3])
    assert signals.attention == ()
