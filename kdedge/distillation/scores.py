"""The scores of every model of a finished run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdedge.data.task import Task
from kdedge.evaluation.score_interval import score_interval
from kdedge.nn.text_model import MeasuredResult, read_measured
from kdedge.run.layout import RunDir
from kdedge.run.stage import read_result
from kdedge.teacher.result import TeacherResult


@dataclass(frozen=True)
class ModelScores:
    """The scores of one trained model.

    Attributes:
        model: `teacher`, the student's name, or that name and ` baseline`.
        metric: Name of the metric of the scores `validation` and `test`.
        retention: Test score divided by the teacher's; None if the teacher's is not above 0.
    """

    model: str
    metric: str
    validation: float
    test: float
    parameters: int
    retention: float | None

    @property
    def is_teacher(self) -> bool:
        return self.model == "teacher"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> ModelScores:
        return cls(**document)


def scores(run: RunDir) -> list[ModelScores]:
    """Return the scores of the teacher, then of each student and its baseline."""
    teacher = read_result(run.teacher, TeacherResult)
    rows = []
    for model, folder in model_folders(run).items():
        result = read_result(folder, MeasuredResult)
        row = ModelScores(
            model=model,
            metric=result.metric,
            validation=result.validation,
            test=result.test,
            parameters=result.parameters,
            retention=result.test / teacher.test if teacher.test > 0 else None,
        )
        rows.append(row)
    return rows


def model_folders(run: RunDir) -> dict[str, Path]:
    """Return model -> folder of its stage, with the names and in the order of `scores`."""
    folders = {"teacher": run.teacher}
    for name, student in run.students.items():
        run.require_same_teacher(name)
        folders[name] = student.student
        baseline = student.current_baseline()
        if baseline:
            folders[f"{name} baseline"] = baseline
    return folders


def score_intervals(task: Task, logits: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """Return model -> the 95 % bootstrap interval of its test score.

    Args:
        task: The run's task.
        logits: Model -> its logits on the test split. *Shape:* (N, C)
    """
    intervals = {}
    for model, of_model in logits.items():
        intervals[model] = score_interval(task.spec, of_model, task.test.labels)
    return intervals


def stored_logits(run: RunDir, task: Task) -> dict[str, np.ndarray]:
    """Return model -> its logits (N, C) on the test split, as the stages of a run saved them."""
    logits = {}
    for model, folder in model_folders(run).items():
        logits[model] = read_measured(folder, task)[1]
    return logits
