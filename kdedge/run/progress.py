"""How long work tells how far it is; the library reports here and only command modules print."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives what the library has to say while it works."""

    def say(self, line: str) -> None:
        """One finished fact, such as `transfer: same inputs, kept`."""

    def start(self, what: str, total: int, done: int = 0) -> None:
        """Work of `total` equal steps begins, `done` of them by an earlier, interrupted run; a second start ends the first."""

    def advance(self, done: int, note: str = "") -> None:
        """`done` of the steps are finished in all; `note` is a short reading such as a loss."""

    def finish(self) -> None:
        """The work begun last has ended."""


class Silent:
    """Says nothing: the default of every library function."""

    def say(self, line: str) -> None: ...

    def start(self, what: str, total: int, done: int = 0) -> None: ...

    def advance(self, done: int, note: str = "") -> None: ...

    def finish(self) -> None: ...


SILENT = Silent()
