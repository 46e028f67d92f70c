"""Read labelled texts, check them row by row, and split them without overlap."""

from __future__ import annotations

from kdedge.data.load import load_task
from kdedge.data.task import Split, Task

__all__ = ["Split", "Task", "load_task"]
