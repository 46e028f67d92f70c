"""How the library reports progress; only command modules print."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receive messages and progress from the library."""

    def say(self, line: str) -> None:
        """Report one finished fact, such as `transfer: same inputs, kept`."""

    def start(self, what: str, total: int, done: int = 0) -> None:
        """Begin work of `total` equal steps; an interrupted run has `done` of them already.

        A second start ends the first.
        """

    def advance(self, done: int, note: str = "") -> None:
        """Report the number of finished steps, and a short reading such as a loss."""

    def finish(self) -> None:
        """End the work begun last."""


class Silent:
    """Report nothing: the default of every library function."""

    def say(self, line: str) -> None: ...

    def start(self, what: str, total: int, done: int = 0) -> None: ...

    def advance(self, done: int, note: str = "") -> None: ...

    def finish(self) -> None: ...


SILENT = Silent()
