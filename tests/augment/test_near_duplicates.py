"""Near duplicates: the index finds exactly what comparing every pair finds."""

from __future__ import annotations

from collections import Counter
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdedge.augment import near_duplicates as near
from kdedge.augment.near_duplicates import NearIndex, jaccard, shingle_counts, shingles

texts = st.lists(st.text("ab cd.", max_size=14), min_size=1, max_size=12)


@given(texts, texts, st.sampled_from([0.3, 0.5, 0.6, 0.75, 0.9, 1.0]))
@settings(max_examples=300, deadline=None)
def test_finds_what_comparing_every_pair_finds(
    known: list[str], asked: list[str], threshold: float
) -> None:
    sets = [shingles(text) for text in known]
    index = NearIndex(threshold, shingle_counts(sets[::2]))
    for runs in sets:
        index.add(runs)
    for text in asked:
        runs = shingles(text)
        assert index.near(runs) == any(jaccard(runs, other) >= threshold for other in sets)


@given(texts, texts, st.sampled_from([0.5, 0.9, 1.0]))
@settings(max_examples=300, deadline=None)
def test_finds_every_text_that_another_holds(
    known: list[str], asked: list[str], share: float
) -> None:
    sets = [shingles(text) for text in known]
    index = NearIndex(1.0, shingle_counts(sets[::2]), whole=share)
    with patch.object(near, "LEAST", 5):
        for runs in sets:
            index.add(runs)
        for text in asked:
            runs = shingles(text + "".join(known[:1]))
            held = any(
                len(other) >= 5 and len(runs & other) >= share * len(other) - 1e-9 for other in sets
            )
            assert index.near(runs) == (held or any(runs == other for other in sets))


CHINESE = "这部电影非常好看，演员的表演也很到位，值得再看一遍！"


@pytest.mark.parametrize(
    "copy",
    [
        " ".join(CHINESE),
        "这部 电影 非常 好看 ， 演员 的 表演 也 很 到位 ， 值得 再 看 一遍 ！",
        "这部电影非常好看演员的表演也很到位值得再看一遍",
        CHINESE.replace("，", ""),
    ],
)
def test_space_and_punctuation_say_nothing_where_a_script_writes_no_spaces(copy: str) -> None:
    assert jaccard(shingles(copy), shingles(CHINESE)) == 1.0
    assert (
        jaccard(shingles("剧情太无聊了，看到一半就睡着了，不推荐大家去看。"), shingles(CHINESE))
        < 0.2
    )


def test_one_word_exchanged_does_not_hide_a_chinese_copy() -> None:
    assert jaccard(shingles(CHINESE.replace("演员", "导演")), shingles(CHINESE)) > 0.6


def test_case_space_and_punctuation_do_not_hide_a_copy() -> None:
    index = NearIndex(1.0, Counter())
    index.add(shingles("The film, was  GREAT!"))
    assert index.near(shingles("the film was great"))
    assert not index.near(shingles("the film was grey"))


def test_the_sides_of_a_pair_are_kept_apart() -> None:
    assert (
        jaccard(shingles("a good film", "a bad plot"), shingles("a bad plot", "a good film")) == 0.0
    )
    assert (
        jaccard(shingles("a good film", "a bad plot"), shingles("a good film", "a bad plot")) == 1.0
    )
