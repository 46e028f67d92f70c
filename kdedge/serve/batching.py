"""Collect the texts of several requests into one batch while the model is busy."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from kdedge.serve.limits import Limits, busy

Answer = TypeVar("Answer")
Row = tuple[str, str | None]
"""A text, and its second text for a classifier of pairs, else None."""


@dataclass
class _Request(Generic[Answer]):
    rows: Sequence[Row]
    answers: asyncio.Future[list[Answer]]


class MicroBatcher(Generic[Answer]):
    """Runs a function on batches of rows; requests that wait share a batch.

    No request waits for others to arrive: a batch starts as soon as the one before it ends, with
    all requests that have arrived by then, up to the limit. So batches grow with the load.

    Args:
        function: From rows to one answer for each, in order. It runs in its own thread.
        limits: `batch` and `queue` count rows.
        on_batch: Is called with the number of rows of every batch.
    """

    def __init__(
        self,
        function: Callable[[Sequence[Row]], list[Answer]],
        limits: Limits,
        on_batch: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._function = function
        self._limits = limits
        self._on_batch = on_batch
        self._waiting: deque[_Request[Answer]] = deque()
        self._waiting_rows = 0
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kdedge-model")
        self._worker: asyncio.Task[None] | None = None

    @property
    def waiting_rows(self) -> int:
        """Number of rows that wait for the model."""
        return self._waiting_rows

    async def submit(self, rows: Sequence[Row]) -> list[Answer]:
        """Return the answers to the rows of one request.

        Raises:
            RequestError: With status 429, if too many rows wait already.
        """
        if self._waiting_rows + len(rows) > self._limits.queue:
            raise busy(self._waiting_rows, self._limits)
        answers: asyncio.Future[list[Answer]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Request(rows, answers))
        self._waiting_rows += len(rows)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await answers

    async def close(self) -> None:
        """Answer the requests that wait, and stop the thread."""
        if self._worker is not None:
            await self._worker
        self._thread.shutdown()

    async def _work(self) -> None:
        while self._waiting:
            requests = self._next_batch()
            if not requests:
                continue
            rows = [row for request in requests for row in request.rows]
            self._on_batch(len(rows))
            try:
                answers = await asyncio.get_running_loop().run_in_executor(
                    self._thread, self._function, rows
                )
            except Exception as error:
                for request in requests:
                    _fail(request, error)
                continue
            start = 0
            for request in requests:
                end = start + len(request.rows)
                if not request.answers.done():  # It is done if its client has gone away.
                    request.answers.set_result(answers[start:end])
                start = end

    def _next_batch(self) -> list[_Request[Answer]]:
        """Take the requests of the next batch: one that is too large alone is a batch.

        Requests that nobody waits for any more are dropped, so there may be none left.
        """
        requests: list[_Request[Answer]] = []
        count = 0
        while self._waiting:
            rows = len(self._waiting[0].rows)
            if requests and count + rows > self._limits.batch:
                break
            request = self._waiting.popleft()
            self._waiting_rows -= rows
            if not request.answers.done():
                requests.append(request)
                count += rows
        return requests


def _fail(request: _Request[Answer], error: Exception) -> None:
    if not request.answers.done():
        request.answers.set_exception(error)
