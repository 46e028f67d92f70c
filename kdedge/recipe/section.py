"""What all tables of a recipe have in common."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Length = Annotated[int, Field(ge=4, description="tokens, special ones included")]


class Section(BaseModel):
    """A table of the recipe: frozen, and a key it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class FitConfig(Section):
    """How one model is trained."""

    epochs: Annotated[float, Field(gt=0, le=1000)] = 3.0
    batch_size: Positive = 32
    gradient_accumulation: Positive = 1
    learning_rate: Annotated[float, Field(gt=0, lt=10, allow_inf_nan=False)] = 5e-5
    warmup: Annotated[float, Field(ge=0, lt=1)] = Field(0.1, description="share of all steps")
    weight_decay: Weight = 0.01
    checks: Positive = Field(
        3, description="how often the validation split is measured and a checkpoint kept, in all"
    )
    precision: Precision = Field(
        "auto", description="auto: bf16 or fp16 where the device computes in it natively, else fp32"
    )
