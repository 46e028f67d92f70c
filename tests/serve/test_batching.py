"""Batches grow with the load; limits, failures and the end of a server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from kdedge.serve.batching import MicroBatcher, Row
from kdedge.serve.limits import Limits, RequestError


class SlowModel:
    """Answers with the texts, once `gate` is open, and remembers its batches."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.batches: list[list[str]] = []

    def __call__(self, rows: Sequence[Row]) -> list[str]:
        assert self.gate.wait(10)
        texts = [row[0] for row in rows]
        self.batches.append(texts)
        if "bad" in texts:
            raise ValueError("bad text")
        return texts


def rows(*texts: str) -> list[Row]:
    return [(text, None) for text in texts]


async def start(batcher: MicroBatcher[str], *requests: list[Row]) -> list[asyncio.Task[list[str]]]:
    """Submit requests one after the other, while the model waits for the gate."""
    tasks = []
    for request in requests:
        tasks.append(asyncio.create_task(batcher.submit(request)))
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


def test_requests_that_wait_share_a_batch() -> None:
    async def scenario() -> None:
        model = SlowModel()
        sizes: list[int] = []
        batcher = MicroBatcher(model, Limits(batch=4), sizes.append)
        tasks = await start(batcher, rows("a"), rows("b"), rows("c", "d"), rows("e"), rows("f"))
        model.gate.set()
        assert await asyncio.gather(*tasks) == [["a"], ["b"], ["c", "d"], ["e"], ["f"]]
        assert model.batches == [["a"], ["b", "c", "d", "e"], ["f"]]
        assert sizes == [1, 4, 1]
        await batcher.close()

    asyncio.run(scenario())


def test_request_larger_than_a_batch_is_answered() -> None:
    async def scenario() -> None:
        model = SlowModel()
        model.gate.set()
        batcher = MicroBatcher(model, Limits(batch=2))
        assert await batcher.submit(rows("a", "b", "c")) == ["a", "b", "c"]
        await batcher.close()

    asyncio.run(scenario())


def test_full_queue_is_refused() -> None:
    async def scenario() -> None:
        model = SlowModel()
        batcher = MicroBatcher(model, Limits(queue=3))
        tasks = await start(batcher, rows("a"), rows("b", "c"))
        assert batcher.waiting_rows == 2
        with pytest.raises(RequestError) as raised:
            await batcher.submit(rows("d", "e"))
        assert raised.value.status == 429
        model.gate.set()
        assert await asyncio.gather(*tasks) == [["a"], ["b", "c"]]
        assert await batcher.submit(rows("d", "e")) == ["d", "e"]
        await batcher.close()

    asyncio.run(scenario())


def test_failure_reaches_its_batch_only() -> None:
    async def scenario() -> None:
        model = SlowModel()
        batcher = MicroBatcher(model, Limits(batch=1))
        tasks = await start(batcher, rows("a"), rows("bad"), rows("c"))
        model.gate.set()
        first, second, third = await asyncio.gather(*tasks, return_exceptions=True)
        assert (first, third) == (["a"], ["c"])
        assert isinstance(second, ValueError)
        await batcher.close()

    asyncio.run(scenario())


def test_client_that_went_away_does_not_hurt_the_others() -> None:
    async def scenario() -> None:
        model = SlowModel()
        batcher = MicroBatcher(model, Limits())
        tasks = await start(batcher, rows("a"), rows("b"), rows("c"))
        tasks[1].cancel()
        model.gate.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert (results[0], results[2]) == (["a"], ["c"])
        assert model.batches == [["a"], ["c"]]
        assert batcher.waiting_rows == 0
        await batcher.close()

    asyncio.run(scenario())


def test_close_answers_what_waits() -> None:
    async def scenario() -> None:
        model = SlowModel()
        batcher = MicroBatcher(model, Limits(batch=1))
        tasks = await start(batcher, rows("a"), rows("b"))
        closing = asyncio.create_task(batcher.close())
        model.gate.set()
        await closing
        assert [task.result() for task in tasks] == [["a"], ["b"]]

    asyncio.run(scenario())
