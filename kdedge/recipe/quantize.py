"""The table quantize of a student: how it becomes int8."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from kdedge.recipe.section import Positive, Section, Weight

SmallLearningRate = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]


class QuantizeConfig(Section):
    """How a student is quantized to int8."""

    steps: Annotated[int, Field(ge=0)] = Field(
        300,
        description="Steps of quantization-aware training, if calibration alone changes too much; "
        "0 only calibrates.",
    )
    batch_size: Positive = Field(32, description="Texts per step.")
    learning_rate: SmallLearningRate = Field(2e-5, description="Learning rate of the weights.")
    float_weight: Weight = Field(
        1.0, description="Weight of the loss to the float student's logits; the teacher's has 1."
    )
    hidden_weight: Weight = Field(
        1.0, description="Weight of the loss to the float student's hidden states."
    )
    checks: Positive = Field(3, description="How often the validation split is scored, in all.")
    calibration_texts: Positive = Field(
        256, description="Training texts that calibrate the activation ranges."
    )
    learn_ranges: bool = Field(
        True, description="Whether training also moves the activation ranges (LSQ)."
    )
    range_learning_rate: SmallLearningRate = Field(
        2e-3, description="Learning rate of a range's ends, in widths of the range."
    )
    largest_drop: Weight = Field(
        0.01,
        description="Drop of the validation score above which the bundle holds no int8 file; less "
        "than one text is always allowed.",
    )
    trim_vocab: Positive | None = Field(
        None,
        description="Pieces to keep of a WordPiece vocabulary after training; default: all.",
    )


class BiLstmQuantizeConfig(QuantizeConfig):
    """How a BiLSTM is quantized to int8."""

    learning_rate: SmallLearningRate = Field(1e-4, description="Learning rate of the weights.")
