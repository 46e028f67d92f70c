"""The recipe as a whole: one experiment as a validated value."""

from __future__ import annotations

from typing import Annotated, Any

import tomli_w
from pydantic import (
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from kdedge.recipe.augment import AugmentConfig
from kdedge.recipe.section import Name, Positive, Section
from kdedge.recipe.students import StudentConfig
from kdedge.recipe.task import DataConfig, TaskConfig, TeacherConfig, TransferConfig
from kdedge.recipe.tune import TuneConfig

RUN_FOLDERS = frozenset(
    (
        "teacher",
        "teacher-bundle",
        "general",
        "generator",
        "inputs",
        "augment",
        "transfer",
        "student",
        "student-int8",
        "layers",
        "tune",
        "curve",
        "baseline",
        "bundle",
        "bench",
    )
)
"""Folders of a run, which no student can be named after."""


class Recipe(Section):
    """One teacher, one transfer set, one or more students."""

    name: Name = Field(description="Name of the run and of its folder.")
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(
        0, description="Seed of data, teacher and students."
    )
    student_seed: Annotated[int, Field(ge=0, lt=2**31)] | None = Field(
        None, description="Seed of the students only; default: seed."
    )
    threads: Positive | None = Field(
        None,
        description="CPU threads of training, which decide how sums are rounded; default: as saved "
        "in the run, else this process's cores.",
    )
    share: Name | None = Field(
        None, description="Name of the run whose teacher and texts are used; default: this run."
    )
    task: TaskConfig = Field(TaskConfig(), description="What the classifier predicts.")
    data: DataConfig = Field(description="Where the examples are.")
    teacher: TeacherConfig = Field(description="The model that the students learn from.")
    transfer: TransferConfig = Field(
        TransferConfig(), description="How the teacher labels the transfer set."
    )
    augment: AugmentConfig | None = Field(None, description="New texts for the transfer set.")
    student: list[Annotated[StudentConfig, Field(discriminator="kind")]] = Field(
        min_length=1, description="The students; all learn from the same transfer set."
    )
    tune: TuneConfig | None = Field(None, description="What `kdedge tune` tries.")

    @field_validator("student", mode="before")
    @classmethod
    def _list_of_one(cls, value: Any) -> Any:
        return [value] if isinstance(value, dict | Section) else value

    @field_validator("student")
    @classmethod
    def _match_scores(
        cls, students: list[StudentConfig], info: ValidationInfo
    ) -> list[StudentConfig]:
        """Set the loss on logits to mse for a regression, unless the recipe sets it."""
        task = info.data.get("task")
        if task is None or task.kind != "regression":
            return students
        return [_with_squared_error(student) for student in students]

    @model_validator(mode="after")
    def _check_names(self) -> Recipe:
        students = [student.key for student in self.student]
        if len(set(students)) < len(students):
            raise ValueError(f"students need different names, but these are {', '.join(students)}")
        taken = sorted(set(students) & RUN_FOLDERS)
        if taken:
            raise ValueError(
                f"a student cannot be called {taken[0]}: a folder of the run has that name"
            )
        return self

    @model_validator(mode="after")
    def _check_assistants(self) -> Recipe:
        earlier: list[str] = []
        for student in self.student:
            if student.assistant and student.assistant not in earlier:
                raise ValueError(
                    f"{student.key}: the assistant {student.assistant} is not a TinyBERT that "
                    f"stands before it; these are: {', '.join(earlier) or 'none'}"
                )
            if student.kind == "tinybert":
                earlier.append(student.key)
        return self

    @model_validator(mode="after")
    def _check_losses(self) -> Recipe:
        if self.task.kind != "regression":
            return self
        for student in self.student:
            if student.objective.logits != "mse" and student.objective.logits_weight:
                raise ValueError(
                    f"{student.key}: a regression has no distribution to compare: "
                    'set objective.logits = "mse"'
                )
        return self

    @property
    def training_seed(self) -> int:
        """The seed for the students' initial weights and the order of their texts."""
        return self.seed if self.student_seed is None else self.student_seed

    @property
    def augment_in_use(self) -> AugmentConfig | None:
        """The table `[augment]`, or None if there is none or its size is 0."""
        return self.augment if self.augment and self.augment.size != 0 else None

    def pretrained(self, student: StudentConfig) -> tuple[str, ...]:
        """Return folders or hub ids of the models that a student comes from.

        These are its own and those of its assistant, but not the recipe's teacher.
        """
        by_key = {other.key: other for other in self.student}
        if not student.assistant:
            return student.pretrained
        return (*self.pretrained(by_key[student.assistant]), *student.pretrained)

    def to_toml(self) -> str:
        """Return the recipe with all defaults; reading it gives an equal recipe."""
        return tomli_w.dumps(_without_none(self.model_dump(mode="json")))


def _with_squared_error(student: StudentConfig) -> StudentConfig:
    if "logits" in student.objective.model_fields_set:
        return student
    objective = student.objective.model_copy(update={"logits": "mse"})
    return student.model_copy(update={"objective": objective})


def _without_none(value: Any) -> Any:
    """Return a copy without None values, which TOML cannot hold."""
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_none(item) for item in value]
    return value
