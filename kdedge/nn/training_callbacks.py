"""What happens during a training beside learning: progress is shown, checkpoints are saved."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from kdedge.run.progress import Progress

SAVE_SECONDS = 60.0
"""A checkpoint is written at least this often, so a kill loses about a minute."""

COMPLETE = "complete"
"""Name of the file that is written into a checkpoint last."""


class ProgressCallback(TrainerCallback):
    """Show the current step and the last loss or validation score."""

    def __init__(self, title: str, progress: Progress) -> None:
        self.title = title
        self.progress = progress
        self.note = ""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.progress.start(self.title, state.max_steps, state.global_step)

    def on_log(
        self, args: Any, state: Any, control: Any, *, logs: dict[str, float], **_: Any
    ) -> None:
        if "validation_score" in logs:
            self.note = f"validation {logs['validation_score']:.4f}"
        elif "part/loss" in logs:
            self.note = f"loss {logs['part/loss']:.4f}"

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.progress.advance(state.global_step, self.note)


class SaveCallback(TrainerCallback):
    """Save every `SAVE_SECONDS` and on a signal, and mark each checkpoint once it is complete."""

    def __init__(self, caught: list[int]) -> None:
        self.caught = caught
        self.saved = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step >= state.max_steps:
            control.should_evaluate = True
        self._save_after_a_signal(control)
        if time.monotonic() - self.saved > SAVE_SECONDS:
            control.should_save = True

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Do what the end of a step does: the last evaluation has no step after it."""
        self._save_after_a_signal(control)

    def _save_after_a_signal(self, control: Any) -> None:
        if self.caught:
            control.should_save = True
            control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.saved = time.monotonic()
        (Path(args.output_dir) / f"checkpoint-{state.global_step}" / COMPLETE).touch()
