"""Near duplicates: the index finds exactly what comparing every pair finds."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from kdedge.augment.near import NearIndex, jaccard, shingle_counts, shingles

texts = st.lists(st.text("ab cd.", max_size=14), min_size=1, max_size=12)


@given(texts, texts, st.sampled_from([0.3, 0.5, 0.6, 0.75, 0.9, 1.0]))
@settings(max_examples=300, deadline=None)
def test_finds_what_comparing_every_pair_finds(known: list[str], asked: list[str], threshold: float) -> None:
    sets = [shingles(text) for text in known]
    index = NearIndex(threshold, shingle_counts(sets[::2]))
    for runs in sets:
        index.add(runs)
    for text in asked:
        runs = shingles(text)
        assert index.near(runs) == any(jaccard(runs, other) >= threshold for other in sets)


def test_case_space_and_punctuation_do_not_hide_a_copy() -> None:
    index = NearIndex(1.0, Counter())
    index.add(shingles("The film, was  GREAT!"))
    assert index.near(shingles("the film was great"))
    assert not index.near(shingles("the film was grey"))


def test_the_sides_of_a_pair_are_kept_apart() -> None:
    assert jaccard(shingles("a good film", "a bad plot"), shingles("a bad plot", "a good film")) == 0.0
    assert jaccard(shingles("a good film", "a bad plot"), shingles("a good film", "a bad plot")) == 1.0
