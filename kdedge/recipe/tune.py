"""The table on tuning: which keys are tried, and with which values."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator, model_validator

from kdedge.recipe.section import Positive, Section


class RangeConfig(Section):
    """Numbers between two, which are among them; whole numbers where both are."""

    low: int | float
    high: int | float
    log: bool = Field(False, description="even in the logarithm: for learning rates and the like")

    @model_validator(mode="after")
    def _is_a_range(self) -> RangeConfig:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(
                f"a range runs from low to a larger high, and above 0 where log = true, not from {self.low} to {self.high}"
            )
        return self


class TuneConfig(Section):
    """What `kdedge tune` tries: keys of a student, each with a range or a list of choices."""

    trials: Positive = 20
    prune: bool = Field(
        True, description="give up a trial that is below the median of the others at the same check"
    )
    ranges: dict[str, RangeConfig | list[bool | int | float | str]] = Field(
        min_length=1, description='such as "student.fit.learning_rate"'
    )

    @field_validator("ranges")
    @classmethod
    def _keys_are_a_students(cls, value: dict[str, Any]) -> dict[str, Any]:
        for key, choices in value.items():
            if not key.startswith("student."):
                raise ValueError(
                    f"{key}: only keys of a student can be tuned; teacher and transfer set are made once and shared by all trials"
                )
            if ".assistant." in key:
                raise ValueError(
                    f"{key}: trials train no assistant; tune it as a student of its own"
                )
            if isinstance(choices, list) and len(choices) < 2:
                raise ValueError(f"{key}: a choice is between two values or more")
        return value
