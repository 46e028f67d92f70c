"""The scores of every model of a finished run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from kdedge.distillation.student_training import StudentResult, training_steps
from kdedge.nn.text_model import MeasuredResult
from kdedge.run.layout import RunDir
from kdedge.run.stage import read_result
from kdedge.teacher.result import TeacherResult


@dataclass(frozen=True)
class ModelScores:
    """The scores of one trained model.

    model: `teacher`, `teacher NAME`, the student's name, or that name and ` baseline`.
    metric: the name of the metric that `validation` and `test` are scores in.
    retention: test score divided by the teacher's; None if the teacher's is not above 0.
    temperature: of one teacher among several; None for all other models.
    """

    model: str
    metric: str
    validation: float
    test: float
    parameters: int
    retention: float | None
    temperature: float | None = None

    @property
    def is_teacher(self) -> bool:
        return self.model == "teacher" or self.temperature is not None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> ModelScores:
        return cls(**document)


def scores(run: RunDir) -> list[ModelScores]:
    """Return the scores of the teacher, then of each student and its baseline.

    With several teachers, `teacher` is their ensemble and each of them follows with its own scores.
    """
    teacher = read_result(run.teacher, TeacherResult)

    def row(name: str, result: MeasuredResult, temperature: float | None = None) -> ModelScores:
        return ModelScores(
            model=name,
            metric=result.metric,
            validation=result.validation,
            test=result.test,
            parameters=result.parameters,
            retention=result.test / teacher.test if teacher.test > 0 else None,
            temperature=temperature,
        )

    rows = [row("teacher", teacher)]
    for name in run.teachers:
        member = teacher.teachers[name]
        rows.append(row(f"teacher {name}", member, member.temperature))
    for name, folders in run.students.items():
        rows.append(row(name, read_result(folders.student, MeasuredResult)))
        baseline = folders.current_baseline()
        if baseline:
            rows.append(row(f"{name} baseline", read_result(baseline, MeasuredResult)))
    return rows


def learned_maps(run: RunDir) -> dict[str, list[list[float]]]:
    """Return student name -> shares (S, T) of teacher layers, for learned layer maps."""
    found = {}
    for student in run.recipe.student:
        name = student.key
        first_step = training_steps(student, run.students[name])[0]
        layer_map = read_result(first_step.folder, StudentResult).layer_map
        if layer_map:
            found[name] = layer_map
    return found
