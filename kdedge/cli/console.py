"""How commands talk: progress with the time left on stderr, errors as letters, results on stdout."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.markup import escape

TALK_SECONDS = 5.0
"""Where stderr is not a terminal, work is reported this often."""


class ConsoleProgress:
    """A Progress on stderr: one line rewritten in a terminal, a line every few seconds elsewhere."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, emoji=False)
        self.live = self.console.is_terminal
        self.what, self.total, self.began, self.spoke, self.first = "", 0, 0.0, 0.0, 0
        self.last_line = ""

    def say(self, line: str) -> None:
        self._clear()
        self.console.print(escape(line))

    def start(self, what: str, total: int, done: int = 0) -> None:
        self.finish()
        self.what, self.total, self.began, self.spoke, self.first = (
            what,
            total,
            time.monotonic(),
            0.0,
            done,
        )

    def advance(self, done: int, note: str = "") -> None:
        now = time.monotonic()
        if now - self.spoke < (0.2 if self.live else TALK_SECONDS) and (
            done < self.total or not self.total
        ):
            return
        self.spoke = now
        gained = max(1, done - self.first)
        left = (self.total - done) * (now - self.began) / gained
        share = (
            f"/{self.total} ({100 * done / self.total:.0f} %), {duration(left)} left"
            if self.total
            else ""
        )
        line = f"{self.what}: {done}{share}" + (f", {note}" if note else "")
        self.last_line = line
        if self.live:
            width = max(20, self.console.width - 1)
            self.console.file.write("\r\x1b[K" + line[:width])
            self.console.file.flush()
        else:
            self.console.print(escape(line), soft_wrap=True)

    def finish(self) -> None:
        if self.what:
            self._clear()
            self.console.print(
                escape(f"{self.what}: done in {duration(time.monotonic() - self.began)}")
            )
        self.what = ""

    def _clear(self) -> None:
        if self.live and self.last_line:
            self.console.file.write("\r\x1b[K")
        self.last_line = ""


def duration(seconds: float) -> str:
    """`7 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def print_error(letter: str) -> None:
    """An error as a letter, on stderr."""
    Console(stderr=True, highlight=False, emoji=False, soft_wrap=True).print(
        f"[bold red]error:[/] {escape(letter)}"
    )


def results() -> Console:
    """Where results go: stdout, at least 120 columns wide when it is not a terminal."""
    console = Console(highlight=False, emoji=False)
    return (
        console
        if console.is_terminal
        else Console(highlight=False, emoji=False, width=max(120, console.width), file=sys.stdout)
    )
