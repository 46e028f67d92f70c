"""The interface for progress of the library, which itself prints nothing."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives messages and progress from the library."""

    def say(self, line: str) -> None:
        """Report a message, such as `transfer: same inputs, kept`."""

    def start(self, what: str, total: int, done: int = 0) -> None:
        """Start a progress bar of `total` equal steps, of which `done` are already finished.

        It replaces the bar before.
        """

    def advance(self, done: int, note: str = "") -> None:
        """Report the number of finished steps, and a short note such as a loss."""

    def finish(self) -> None:
        """End the current progress bar."""


class Silent:
    """Reports nothing: the default of every library function."""

    def say(self, line: str) -> None: ...

    def start(self, what: str, total: int, done: int = 0) -> None: ...

    def advance(self, done: int, note: str = "") -> None: ...

    def finish(self) -> None: ...


SILENT = Silent()
