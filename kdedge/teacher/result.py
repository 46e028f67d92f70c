"""The result of the stage `teacher/`."""

from __future__ import annotations

from dataclasses import dataclass

from kdedge.nn.text_model import MeasuredResult


@dataclass(frozen=True)
class TeacherResult(MeasuredResult):
    """A teacher.

    Attributes:
        model: The checkpoint it was made from.
        fine_tuned: Whether kdedge trained it on the labels.
        seconds: Time to make it.
    """

    model: str
    fine_tuned: bool
    seconds: float
