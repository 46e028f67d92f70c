"""SIGINT and SIGTERM: as exceptions, and deferred until long work has saved its state."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn


class Terminated(BaseException):
    """SIGTERM arrived; like KeyboardInterrupt for SIGINT."""


def raise_terminated(number: int, frame: object) -> NoReturn:
    """Handle SIGTERM: raise Terminated."""
    raise Terminated


@contextmanager
def deferred_signals() -> Iterator[list[int]]:
    """Within the block, collect the first SIGINT or SIGTERM in a list.

    A second signal raises KeyboardInterrupt.
    """
    caught: list[int] = []

    def collect(number: int, _: Any) -> None:
        if caught:
            raise KeyboardInterrupt
        caught.append(number)

    previous: dict[int, Any] = {}
    with suppress(ValueError):  # outside the main thread, signals cannot be handled
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, collect)
    try:
        yield caught
    finally:
        for caught_number, handler in previous.items():
            signal.signal(caught_number, handler)
