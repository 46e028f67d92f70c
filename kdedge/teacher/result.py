"""The result of the stage `teacher/`."""

from __future__ import annotations

from dataclasses import dataclass

from kdedge.nn.text_model import MeasuredResult


@dataclass(frozen=True)
class TeacherResult(MeasuredResult):
    """The origin and the scores of a teacher.

    Attributes:
        model: The checkpoint from which it was made.
        fine_tuned: Whether kdedge trained it on the labels.
        seconds: Duration of the stage; after an interruption, of its last part alone.
    """

    model: str
    fine_tuned: bool
    seconds: float
