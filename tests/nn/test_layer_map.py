"""Layer maps against the tables of the papers."""

from __future__ import annotations

import pytest

from kdedge.errors import UsageError
from kdedge.nn.layer_map import LayerMap


def test_uniform_is_tinybert_table() -> None:
    """TinyBERT4 from BERT-base: g(m) = 3m (Jiao et al. 2020)."""
    assert LayerMap.uniform(student=4, teacher=12).pairs == (
        (0, 0),
        (1, 3),
        (2, 6),
        (3, 9),
        (4, 12),
    )
    assert LayerMap.uniform(student=6, teacher=12).pairs == (
        (0, 0),
        (1, 2),
        (2, 4),
        (3, 6),
        (4, 8),
        (5, 10),
        (6, 12),
    )


def test_last_and_first_are_the_ends() -> None:
    assert LayerMap.last(3, 12).pairs == ((0, 0), (1, 10), (2, 11), (3, 12))
    assert LayerMap.first(3, 12).pairs == ((0, 0), (1, 1), (2, 2), (3, 3))


def test_prints_itself() -> None:
    assert str(LayerMap.uniform(2, 6)) == "0<-0 1<-3 2<-6"


@pytest.mark.parametrize("student, teacher", [(5, 12), (7, 12), (0, 12), (13, 12)])
def test_uniform_names_the_depths_that_fit(student: int, teacher: int) -> None:
    with pytest.raises(UsageError, match="1, 2, 3, 4, 6, 12"):
        LayerMap.uniform(student, teacher)


@pytest.mark.parametrize("pairs", [[(5, 1)], [(1, 13)], [(-1, 0)], [(1, 2), (1, 3)]])
def test_pairs_out_of_range_or_doubled_are_errors(pairs: list[tuple[int, int]]) -> None:
    with pytest.raises(UsageError):
        LayerMap.of(4, 12, pairs)


@pytest.mark.parametrize("make", [LayerMap.last, LayerMap.first, LayerMap.skip])
def test_a_student_deeper_than_its_teacher_is_an_error(make) -> None:
    with pytest.raises(UsageError, match="layer"):
        make(7, 6)


def test_skip_leaves_the_last_layer_to_the_logits() -> None:
    """BERT6 from BERT-base: teacher layers 2, 4, 6, 8, 10 (Sun et al. 2019, section 4.1)."""
    assert LayerMap.skip(6, 12).pairs == ((0, 0), (1, 2), (2, 4), (3, 6), (4, 8), (5, 10))
    assert LayerMap.named("skip", 5, 12).pairs == ((0, 0), (1, 2), (2, 4), (3, 6), (4, 8))


def test_embeddings_learn_from_embeddings_alone() -> None:
    with pytest.raises(UsageError, match="only from the teacher's"):
        LayerMap.of(2, 4, [(0, 2), (1, 2)])
    assert LayerMap.of(2, 4, [(0, 0), (1, 0)]).pairs == ((0, 0), (1, 0))
