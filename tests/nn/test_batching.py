"""Ragged arrays, padding, and work that is prepared ahead."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from kdedge.errors import MachineError
from kdedge.nn import batch_tokens
from kdedge.nn.batch_tokens import fastest_batch_tokens
from kdedge.nn.batching import Encoded, PaddingCollator
from kdedge.nn.prefetch import prefetch
from kdedge.nn.ragged import RaggedArray

LISTS = [[5, 6, 7], [], [8], [9, 1, 2, 3]]


def test_taking_rows_gives_the_lists_at_these_rows() -> None:
    array = RaggedArray.of(LISTS)
    for rows in ([2, 0, 0, 3], [1], [], [3, 2, 1, 0]):
        assert list(array.take(rows)) == [LISTS[row] for row in rows]


def test_padding_fills_up_to_the_longest_list() -> None:
    padded = RaggedArray.of(LISTS).padded(-1)
    expected = [row + [-1] * (4 - len(row)) for row in LISTS]
    assert padded.dtype == np.int64 and padded.tolist() == expected
    assert RaggedArray.of([]).padded(0).shape == (0, 0)


def test_a_batch_has_tensors_of_tokens_and_columns_and_rows_on_the_cpu() -> None:
    data = Encoded.of([[5, 6, 7], [8]])
    data.columns = {"labels": np.array([1, 0]), "row": np.array([0, 1])}
    batch = PaddingCollator(9)(data.__getitems__([1, 0]))
    assert torch.equal(batch["input_ids"], torch.tensor([[8, 9, 9], [5, 6, 7]]))
    assert torch.equal(batch["attention_mask"], torch.tensor([[1, 0, 0], [1, 1, 1]]))
    assert torch.equal(batch["labels"], torch.tensor([0, 1]))
    assert isinstance(batch["row"], np.ndarray) and batch["row"].tolist() == [1, 0]


def test_the_next_job_is_prepared_while_the_current_one_is_used() -> None:
    second = threading.Event()

    def prepare(job: int) -> int:
        if job == 1:
            second.set()
        return 10 * job

    results = prefetch(range(3), prepare, ahead=True)
    assert next(results) == 0
    assert second.wait(timeout=30), "job 1 was not prepared while job 0 was in use"
    assert list(results) == [10, 20]
    assert list(prefetch(range(3), prepare, ahead=False)) == [0, 10, 20]
    assert list(prefetch([], prepare, ahead=True)) == []


def test_an_error_of_a_prepared_job_reaches_the_caller() -> None:
    def prepare(job: int) -> int:
        return 1 // job

    with pytest.raises(ZeroDivisionError):
        list(prefetch([1, 0], prepare, ahead=True))


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ({4096: 10, 8192: 19, 16384: 30, 32768: 31}, 16384),
        ({4096: 10, 8192: 19, 16384: None}, 8192),
        ({4096: None}, 4096),
        ({4096: 10, 8192: 9}, 4096),
    ],
)
def test_the_batch_grows_while_that_pays(rates: dict[int, float | None], expected: int) -> None:
    assert fastest_batch_tokens(rates.__getitem__) == expected


def test_a_batch_never_grows_without_limit() -> None:
    assert fastest_batch_tokens(float) == batch_tokens.LARGEST


def test_a_batch_that_does_not_fit_ends_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a device that is not a CPU; `meta` computes nothing, so predictions are replaced."""
    tried = []

    def predict(*_: object, batch_tokens: int, **__: object) -> None:
        tried.append(batch_tokens)
        if batch_tokens > 8192:
            raise MachineError("memory ran out on a single text")

    monkeypatch.setattr(batch_tokens, "predict_logits", predict)
    model = torch.nn.Linear(1, 1, device="meta")
    data = Encoded.of([[1, 2, 3]] * 7)
    found = batch_tokens.measure_batch_tokens(model, data, PaddingCollator(0), None)
    assert found in (4096, 8192) and max(tried) <= 16384
    cpu = torch.nn.Linear(1, 1)
    assert batch_tokens.measure_batch_tokens(cpu, data, PaddingCollator(0), None) == 4096
