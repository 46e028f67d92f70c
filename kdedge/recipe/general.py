"""The table general of a student: what it learns before its task."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from kdedge.recipe.objective import AttentionLoss, LayerLossConfig, ObjectiveConfig
from kdedge.recipe.section import FitConfig, LearningRate, Length, Name, Section, Weight

KEYS_OF_THE_TASK = frozenset(
    ("name", "max_length", "vocabulary", "baseline", "fit", "objective", "layers_first", "quantize")
)
"""Keys of a student that do not decide its general student."""


class TextFileConfig(Section):
    """A file of unlabelled texts."""

    file: str = Field(description="A csv, tsv, jsonl, parquet or txt file.")
    text: str = Field("text", description="Column of the text.")
    pair: str | None = Field(None, description="Column of the second text; default: single texts.")


class GeneralFitConfig(FitConfig):
    """How a general student is trained."""

    learning_rate: LearningRate = Field(1e-4, description="Highest learning rate of AdamW.")
    checks: Literal[1] = Field(1, description="The training ends with its last weights.")


class GeneralObjectiveConfig(LayerLossConfig):
    """The loss of a general student: layers alone, because its teacher has no head for a task."""

    hidden_weight: Weight = Field(1.0, description="Weight of the loss on hidden states.")
    attention: AttentionLoss = Field(
        "minilm",
        description="Loss between attentions; the last three (minilm is both relations) work for "
        "different numbers of heads.",
    )
    attention_weight: Weight = Field(1.0, description="Weight of the loss on attentions.")

    @model_validator(mode="after")
    def _check_weights(self) -> GeneralObjectiveConfig:
        if not self.reads_layers:
            raise ValueError("all weights are 0: nothing to learn from")
        return self

    def as_objective(self) -> ObjectiveConfig:
        """Return the objective of the training, without losses on logits and labels."""
        return ObjectiveConfig(logits="mse", logits_weight=0.0, **self.model_dump())


class GeneralConfig(Section):
    """First train a general student on layers of the teacher before fine-tuning, for all tasks."""

    texts: list[TextFileConfig] = Field(
        min_length=1,
        description='The files that it learns from, as a list such as [{file = "texts.txt"}].',
    )
    teacher: str | None = Field(
        None,
        description="Folder, package:NAME/FOLDER or hub id of the encoder that it learns from; "
        "default: teacher.model.",
    )
    share: Name | None = Field(
        None,
        description="Name of the run that holds the general student, for several tasks; default: "
        "share, else this run.",
    )
    max_length: Length = Field(
        128, description="Tokens per text, special tokens included; longer texts are cut."
    )
    fit: GeneralFitConfig = Field(GeneralFitConfig(), description="How it is trained.")
    objective: GeneralObjectiveConfig = Field(
        GeneralObjectiveConfig(), description="Its training loss."
    )
