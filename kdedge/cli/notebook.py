"""Progress in a notebook: one output that is updated in place."""

from __future__ import annotations

import html
from typing import Any

from rich.console import Console

from kdedge.cli.console import ConsoleProgress

SHOWN_MESSAGES = 12
"""Finished messages above the current line; older ones disappear."""


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    return Console().is_jupyter


class NotebookProgress(ConsoleProgress):
    """Shows the last messages and the current step in one output of a cell."""

    def __init__(self) -> None:
        super().__init__()
        self.in_terminal = True  # The output can be rewritten as often as a line in a terminal.
        self.messages: list[str] = []
        self._output: Any = None

    def say(self, line: str) -> None:
        self.messages.append(line)
        self._show("")

    def _print_line(self, line: str) -> None:
        self._show(line)

    def _show(self, line: str) -> None:
        """Update the output, which is created on first use: in the cell that called kdedge."""
        from IPython.display import HTML, display

        lines = [*self.messages[-SHOWN_MESSAGES:], line]
        content = HTML(f"<pre>{html.escape(chr(10).join(lines).strip())}</pre>")
        if self._output is None:
            self._output = display(content, display_id=True)
        else:
            self._output.update(content)
