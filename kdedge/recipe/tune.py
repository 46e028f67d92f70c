"""The table tune: which keys of a student are tried, and with which values."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator, model_validator

from kdedge.recipe.section import Positive, Section


class RangeConfig(Section):
    """Numbers from low to high; whole numbers if both ends are."""

    low: int | float = Field(description="The lowest value.")
    high: int | float = Field(description="The highest value.")
    log: bool = Field(
        False, description="Whether values are even on a logarithmic scale, as for learning rates."
    )

    @model_validator(mode="after")
    def _check_ends(self) -> RangeConfig:
        if self.low >= self.high:
            raise ValueError(f"low = {self.low} is not below high = {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"with log = true, low = {self.low} must be above 0")
        return self


class TuneConfig(Section):
    """What `kdedge tune` tries: keys of a student, each with a range or a list of choices."""

    trials: Positive = Field(20, description="Students to train.")
    prune: bool = Field(
        True,
        description="Whether to stop a trial that scores below the median of the others at the "
        "same check.",
    )
    ranges: dict[str, RangeConfig | list[bool | int | float | str]] = Field(
        min_length=1, description='Keys such as "student.fit.learning_rate", with their values.'
    )

    @field_validator("ranges")
    @classmethod
    def _check_keys(cls, ranges: dict[str, Any]) -> dict[str, Any]:
        for key, choices in ranges.items():
            if not key.startswith("student."):
                raise ValueError(
                    f"{key}: only keys of a student can be tuned; all trials share the teacher "
                    "and the transfer set"
                )
            if isinstance(choices, list) and len(choices) < 2:
                raise ValueError(f"{key}: give at least two choices")
        return ranges
