"""The index finds exactly the near duplicates that comparing every pair finds."""

from __future__ import annotations

from collections import Counter
from unittest.mock import patch

import pytest
from factories import jaccard
from hypothesis import given, settings
from hypothesis import strategies as st

from kdedge.augment import near_duplicates
from kdedge.augment.near_duplicates import (
    NearDuplicateIndex,
    count_shingles,
    shingles,
)

texts = st.lists(st.text("ab cd.", max_size=14), min_size=1, max_size=12)


@given(texts, texts, st.sampled_from([0.3, 0.5, 0.6, 0.75, 0.9, 1.0]))
@settings(max_examples=300)
def test_finds_the_same_near_duplicates_as_comparing_every_pair(
    known: list[str], queries: list[str], threshold: float
) -> None:
    sets = [shingles(text) for text in known]
    index = NearDuplicateIndex(threshold, count_shingles(sets[::2]))
    for known_shingles in sets:
        index.add(known_shingles)
    for text in queries:
        query = shingles(text)
        expected = any(jaccard(query, other) >= threshold for other in sets)
        assert index.has_near_duplicate(query) == expected


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.6, 0.75, 0.9])
def test_the_rarest_shingles_may_be_missing(threshold: float) -> None:
    order = [f"{rank:02}" for rank in range(12)]
    frequencies = Counter({shingle: rank for rank, shingle in enumerate(order, start=1)})
    query = frozenset(order)
    for missing in range(12):
        for added in range(12):
            other = frozenset(order[missing:]) | {f"new {i}" for i in range(added)}
            index = NearDuplicateIndex(threshold, frequencies)
            index.add(frozenset(order) | {f"long {i}" for i in range(50)})  # knows all shingles
            index.add(other)
            assert index.has_near_duplicate(query) == (jaccard(query, other) >= threshold)


@given(texts, texts, st.sampled_from([0.5, 0.9, 1.0]))
@settings(max_examples=300)
def test_finds_every_indexed_text_that_a_query_contains(
    known: list[str], queries: list[str], share: float
) -> None:
    sets = [shingles(text) for text in known]
    index = NearDuplicateIndex(1.0, count_shingles(sets[::2]), containment=share)
    with patch.object(near_duplicates, "MIN_CONTAINED_SHINGLES", 5):
        for known_shingles in sets:
            index.add(known_shingles)
        for text in queries:
            query = shingles(text + "".join(known[:1]))
            contained = any(
                len(other) >= 5 and len(query & other) >= share * len(other) - 1e-9
                for other in sets
            )
            assert index.has_near_duplicate(query) == (contained or query in sets)


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
def test_spaces_and_punctuation_do_not_matter_in_scripts_without_spaces(copy: str) -> None:
    assert jaccard(shingles(copy), shingles(CHINESE)) == 1.0
    assert (
        jaccard(shingles("剧情太无聊了，看到一半就睡着了，不推荐大家去看。"), shingles(CHINESE))
        < 0.2
    )


def test_a_chinese_copy_with_one_other_word_stays_similar() -> None:
    assert jaccard(shingles(CHINESE.replace("演员", "导演")), shingles(CHINESE)) > 0.6


def test_case_spaces_and_punctuation_do_not_hide_a_copy() -> None:
    index = NearDuplicateIndex(1.0, Counter())
    index.add(shingles("The film, was  GREAT!"))
    assert index.has_near_duplicate(shingles("the film was great"))
    assert not index.has_near_duplicate(shingles("the film was grey"))


def test_the_two_texts_of_a_pair_are_not_mixed() -> None:
    assert (
        jaccard(shingles("a good film", "a bad plot"), shingles("a bad plot", "a good film")) == 0.0
    )
    assert (
        jaccard(shingles("a good film", "a bad plot"), shingles("a good film", "a bad plot")) == 1.0
    )
