"""Where the progress of a call from Python goes."""

from __future__ import annotations

from kdedge.run.progress import SILENT, Progress


def progress_of(progress: bool | Progress) -> Progress:
    """Return the receiver of progress: the console or notebook for True, nothing for False."""
    if not isinstance(progress, bool):
        return progress
    if not progress:
        return SILENT
    from kdedge.cli.console import ConsoleProgress
    from kdedge.cli.notebook import NotebookProgress, in_notebook

    return NotebookProgress() if in_notebook() else ConsoleProgress()
