"""Prepare the next job while the current one is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Job = TypeVar("Job")
Prepared = TypeVar("Prepared")


def prefetch(
    jobs: Iterable[Job], prepare: Callable[[Job], Prepared], *, ahead: bool
) -> Iterator[Prepared]:
    """Yield `prepare(job)` for each job, in order.

    Args:
        ahead: Whether a thread prepares the next job while the caller uses the current one: worth
            it if the caller waits for a GPU.
    """
    if not ahead:
        yield from map(prepare, jobs)
        return
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="prepare") as pool:
        waiting: Future[Prepared] | None = None
        for job in jobs:
            following = pool.submit(prepare, job)
            if waiting is not None:
                yield waiting.result()
            waiting = following
        if waiting is not None:
            yield waiting.result()
