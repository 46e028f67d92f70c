"""How commands write: progress and errors on stderr, results on stdout."""

from __future__ import annotations

import sys
import time

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

TERMINAL_INTERVAL = 0.2
LOG_INTERVAL = 5.0
"""Seconds between two progress lines, in a terminal and elsewhere."""

CLEAR_LINE = "\r\x1b[K"


class ConsoleProgress:
    """Progress on stderr: a line that is rewritten in a terminal, else a line every few seconds."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, emoji=False)
        self.in_terminal = self.console.is_terminal
        self.title = ""
        self.total = 0
        self.first_step = 0
        self.start_time = 0.0
        self.last_time = 0.0
        self.last_line = ""

    def say(self, line: str) -> None:
        self._clear_line()
        self.console.print(escape(line))

    def start(self, what: str, total: int, done: int = 0) -> None:
        self.finish()
        self.title = what
        self.total = total
        self.first_step = done
        self.start_time = time.monotonic()
        self.last_time = 0.0

    def advance(self, done: int, note: str = "") -> None:
        now = time.monotonic()
        interval = TERMINAL_INTERVAL if self.in_terminal else LOG_INTERVAL
        is_last = self.total > 0 and done >= self.total
        if now - self.last_time < interval and not is_last:
            return
        self.last_time = now
        self._print_line(self._line(now, done, note))

    def finish(self) -> None:
        if self.title:
            seconds = time.monotonic() - self.start_time
            self.say(f"{self.title}: done in {duration(seconds)}")
        self.title = ""

    def _line(self, now: float, done: int, note: str) -> str:
        line = f"{self.title}: {done}"
        if self.total:
            steps = max(1, done - self.first_step)
            remaining = (self.total - done) * (now - self.start_time) / steps
            percent = 100 * done / self.total
            line += f"/{self.total} ({percent:.0f} %), {duration(remaining)} left"
        if note:
            line += f", {note}"
        return line

    def _print_line(self, line: str) -> None:
        self.last_line = line
        if not self.in_terminal:
            self.console.print(escape(line), soft_wrap=True)
            return
        width = max(20, self.console.width - 1)
        self.console.file.write(CLEAR_LINE + line[:width])
        self.console.file.flush()

    def _clear_line(self) -> None:
        if self.in_terminal and self.last_line:
            self.console.file.write(CLEAR_LINE)
        self.last_line = ""


def duration(seconds: float) -> str:
    """Format seconds as `7 s`, `3 min 20 s` or `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def print_error(text: str) -> None:
    """Print an error on stderr."""
    console = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)
    console.print(f"[bold red]error:[/] {escape(text)}")


def print_message(text: str) -> None:
    """Print a message that is not a result on stderr."""
    click.echo(text, err=True)


def results() -> Console:
    """Make a console for results on stdout, at least 120 columns wide outside of a terminal."""
    console = Console(highlight=False, emoji=False)
    if console.is_terminal:
        return console
    return Console(highlight=False, emoji=False, width=max(120, console.width), file=sys.stdout)


def make_table(title: str, columns: list[str], *, left: tuple[str, ...]) -> Table:
    """Make a table whose columns are aligned to the right, except those named in `left`."""
    table = Table(title=title)
    for column in columns:
        table.add_column(column, justify="left" if column in left else "right")
    return table
