"""The number of texts that a training computes at once: halved whenever memory runs out."""

from __future__ import annotations

import json
from pathlib import Path

from kdedge.errors import MachineError, first_line
from kdedge.io.atomic import json_text, write_atomic
from kdedge.run.processes import processes
from kdedge.run.progress import Progress

SIZE_FILE = "batch_size.json"


class BatchSize:
    """How many texts of a batch are computed at once.

    The optimizer still sees whole batches: the gradients of the parts are added. A smaller size is
    kept in a file, so that a resumed training begins with it.

    Attributes:
        size: Texts at once.
    """

    def __init__(self, folder: Path, batch_size: int, title: str, progress: Progress) -> None:
        self.file = folder / SIZE_FILE
        self.batch_size = batch_size
        self.title = title
        self.progress = progress
        self.reported = batch_size
        self.size = min(batch_size, self._stored())

    def _stored(self) -> int:
        try:
            return max(1, int(json.loads(self.file.read_text(encoding="utf-8"))["texts"]))
        except (OSError, ValueError, KeyError, TypeError):
            return self.batch_size

    def halve(self, error: Exception) -> None:
        """Halve the size.

        Raises:
            MachineError: If a single text does not fit, or several processes train: they would
                wait for each other.
        """
        if self.size == 1:
            raise MachineError(
                "memory ran out on a single text",
                f"{self.title}: {first_line(error)}",
                "lower max_length, choose a smaller model, or use a machine with more memory",
            ) from error
        if processes() > 1:
            raise MachineError(
                "memory ran out on a batch",
                f"{self.title}: {first_line(error)}",
                f"in its table of the recipe, set fit.batch_size = {max(1, self.batch_size // 2)} "
                "and double fit.gradient_accumulation",
            ) from error
        self.size = (self.size + 1) // 2

    def keep(self) -> None:
        """Store a size with which a batch succeeded, and report it once."""
        if self.size == self.reported:
            return
        self.reported = self.size
        write_atomic(self.file, json_text({"texts": self.size, "batch_size": self.batch_size}))
        self.progress.say(
            f"{self.title}: memory ran out, so {self.size} texts are computed at once; "
            f"a step still learns from {self.batch_size}"
        )
