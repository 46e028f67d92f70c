"""The result of the stage `teacher/`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

from kdedge.nn.text_model import MeasuredResult


@dataclass(frozen=True)
class MemberResult(MeasuredResult):
    """One teacher of an ensemble.

    Attributes:
        model: The checkpoint it was made from.
        temperature: Its logits are divided by it before the mean.
    """

    model: str
    temperature: float


@dataclass(frozen=True)
class TeacherResult(MeasuredResult):
    """One teacher, or the ensemble of several.

    Attributes:
        model: The checkpoint it was made from; for an ensemble the names of all members.
        fine_tuned: Whether kdedge trained it on the labels.
        seconds: Time to make it.
        teachers: Name -> member of the ensemble; empty for one teacher.
    """

    model: str
    fine_tuned: bool
    seconds: float
    teachers: dict[str, MemberResult] = field(default_factory=dict)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        teachers = {}
        for name, member in document.get("teachers", {}).items():
            teachers[name] = MemberResult.from_json(member)
        return super().from_json(document | {"teachers": teachers})
