"""The base class and the shared value types of a recipe's tables."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, le=1)]
Epochs = Annotated[float, Field(gt=0, le=1000)]
LearningRate = Annotated[float, Field(gt=0, lt=10, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Length = Annotated[int, Field(ge=4)]


class Section(BaseModel):
    """A table of the recipe: it is immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class FitConfig(Section):
    """How one model is trained."""

    epochs: Epochs = Field(3.0, description="Passes over the training texts.")
    batch_size: Positive = Field(32, description="Texts per batch of one process.")
    gradient_accumulation: Positive = Field(
        1, description="Batches whose gradients are added before an optimizer step."
    )
    learning_rate: LearningRate = Field(5e-5, description="Highest learning rate of AdamW.")
    warmup: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.1, description="Share of all steps in which the learning rate rises."
    )
    weight_decay: Weight = Field(0.01, description="Weight decay of AdamW.")
    checks: Positive = Field(
        3,
        description="How often the validation split is scored, in all; the best weights are kept.",
    )
    precision: Precision = Field(
        "auto",
        description="Number format of training; auto is bf16 or fp16 if the device supports it, "
        "else fp32.",
    )
    compile: bool = Field(
        False, description="Whether torch.compile compiles the model first; it pays on a GPU."
    )
