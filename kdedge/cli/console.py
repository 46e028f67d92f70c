"""How commands write: progress and errors on stderr, results on stdout."""

from __future__ import annotations

import json
import sys
import textwrap
import time
from typing import Any, Literal

import click
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kdedge.printable import json_line, printable, printable_lines

TERMINAL_INTERVAL = 0.2
LOG_INTERVAL = 5.0
"""Seconds between two progress lines: in a terminal, and of work without a known total in a log."""

LOG_SHARE = 10
"""Percent of the work between two lines of a log."""

LOG_SECONDS = 1.0
"""Shortest time between two lines of a log: quick work prints only its end."""

WIDE_COLUMNS = 140

LONGEST_WORD = 24
"""A word of more characters may be cut, onto two lines of a table."""

CLEAR_LINE = "\r\x1b[K"

DATA = "data: "
"""Begins a fact about the data, which a command prints once."""


class ConsoleProgress:
    """Progress on stderr: a line that is rewritten in a terminal, else a line per 10 %."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, emoji=False)
        self.in_terminal = self.console.is_terminal
        self.title = ""
        self.total = 0
        self.first_step = 0
        self.start_time = 0.0
        self.last_time = 0.0
        self.last_line = ""
        self.last_percent = 0
        self.data_lines: set[str] = set()

    def say(self, line: str) -> None:
        if line.startswith(DATA):
            # The parts of `kdedge run` read the same data one after the other.
            if line in self.data_lines:
                return
            self.data_lines.add(line)
        self._clear_line()
        self.console.print(escape(printable(line)), soft_wrap=not self.in_terminal)

    def start(self, what: str, total: int, done: int = 0) -> None:
        self.finish()
        self.title = what
        self.total = total
        self.first_step = done
        self.start_time = time.monotonic()
        self.last_time = 0.0 if self.in_terminal else self.start_time
        self.last_percent = 100 * done // total if total else 0

    def advance(self, done: int, note: str = "") -> None:
        now = time.monotonic()
        if not self._is_due(now - self.last_time, done):
            return
        self.last_time = now
        self._print_line(self._line(now, done, note))

    def finish(self) -> None:
        if self.title:
            seconds = time.monotonic() - self.start_time
            self.say(f"{self.title}: done in {duration(seconds)}")
        self.title = ""

    def _is_due(self, seconds: float, done: int) -> bool:
        """Return whether a line is due; `seconds` have passed since the last one."""
        if self.in_terminal:
            return seconds >= TERMINAL_INTERVAL or 0 < self.total <= done
        if not self.total:
            return seconds >= LOG_INTERVAL
        percent = 100 * done // self.total
        if percent // LOG_SHARE == self.last_percent // LOG_SHARE or seconds < LOG_SECONDS:
            return False
        self.last_percent = percent
        return True

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
        line = printable(line)
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


def size_text(count: float) -> str:
    """Format bytes as `512 B`, `17.4 KB`, `4.2 MB` or `1.3 GB`; 1 KB is 1000 bytes."""
    for unit in ("B", "KB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def text_width() -> int:
    """Return the width of running text: that of the terminal, but at most 100 columns."""
    return min(100, Console().width)


def print_error(text: str) -> None:
    """Print an error on stderr."""
    console = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)
    console.print(f"[bold red]error:[/] {escape(printable_lines(text))}")


def print_message(text: str) -> None:
    """Print a message that is not a result on stderr."""
    click.echo(printable_lines(text), err=True)


def print_line(text: str) -> None:
    """Print a line of a result on stdout."""
    click.echo(printable(text))


def fold(text: str, indent: int = 0) -> str:
    """Break text between words at the width of running text.

    Args:
        text: Words; a word that is wider than a line stays whole.
        indent: Columns by which all lines but the first are indented.

    Example:
        >>> print(fold("labels:   " + "yes, no, maybe, " * 8, indent=10))  # doctest: +SKIP
    """
    return textwrap.fill(
        printable(text),
        text_width(),
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def print_json(document: Any) -> None:
    """Print a document as one line of JSON on stdout."""
    line = json_line(document)
    if not _can_encode(line):
        line = json.dumps(document)
    click.echo(line)


def _can_encode(text: str) -> bool:
    """Return whether stdout has all characters of a text; that of Windows may not."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def results(*, wide: bool = False) -> Console:
    """Make a console for results on stdout.

    Args:
        wide: Outside of a terminal, make it wide enough for tables with all columns.
    """
    console = Console(highlight=False, emoji=False)
    if console.is_terminal or not wide:
        return console
    width = max(WIDE_COLUMNS, console.width)
    return Console(highlight=False, emoji=False, width=width, file=sys.stdout)


class PlainTable(Table):
    """A table whose cells are plain text: neither markup nor control characters have an effect."""

    def add_row(self, *cells: Any, **settings: Any) -> None:
        texts = [printable_lines(cell) for cell in cells]
        for column, text in zip(self.columns, texts, strict=False):
            # A word is cut only if it is longer than this.
            longest = max(map(len, text.split()), default=0)
            column.min_width = max(column.min_width or 0, min(longest, LONGEST_WORD))
        super().add_row(*map(escape, texts), **settings)


def make_table(title: str, columns: list[str], *, left: tuple[str, ...]) -> Table:
    """Make a table whose columns are aligned to the right, except those named in `left`."""
    table = PlainTable(
        title=escape(printable(title)) or None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
    )
    for column in columns:
        justify: Literal["left", "right"] = "left" if column in left else "right"
        # Cells wrap between words; only a longer word than the column is cut, onto two lines.
        table.add_column(escape(column), justify=justify, overflow="fold")
    return table
