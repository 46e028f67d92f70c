"""The table objective of a student: its training loss."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from kdedge.recipe.section import Positive, Section, Weight

AttentionLoss = Literal["scores", "probabilities", "kl", "value_relation", "qk_relation", "minilm"]


class OutputLossConfig(Section):
    """The terms of a loss that compare outputs, with the teacher's logits or with labels."""

    logits: Literal["kl", "mse", "cosine", "soft_ce"] = Field(
        "kl", description="Loss between logits of student and teacher; mse for a regression."
    )
    logits_weight: Weight = Field(1.0, description="Weight of the loss on logits.")
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        1.0, description="Temperature of kl; other losses do not use it."
    )
    labels_weight: Weight = Field(0.0, description="Weight of the loss on labels.")


class LayerLossConfig(Section):
    """The terms of a loss that compare layers of student and teacher."""

    hidden: Literal["mse", "cosine", "pkd", "cka"] = Field(
        "mse",
        description="Loss between hidden states; pkd compares the normalised states of the first "
        "token, cka needs no projection.",
    )
    hidden_weight: Weight = Field(0.0, description="Weight of the loss on hidden states.")
    attention: AttentionLoss = Field(
        "scores",
        description="Loss between attentions; the last three (minilm is both relations) work for "
        "different numbers of heads.",
    )
    attention_weight: Weight = Field(0.0, description="Weight of the loss on attentions.")
    relation_heads: Positive | None = Field(
        None,
        description="Parts into which relations cut the vectors; default: the largest number that "
        "divides the student's width and the teacher's heads.",
    )
    embedding_weight: Weight = Field(
        0.0, description="Weight of the loss between embedding outputs."
    )
    layer_map: Literal["uniform", "first", "last", "skip"] | list[tuple[int, int]] = Field(
        "uniform",
        description="The teacher layer for each student layer, or pairs [student, teacher].",
    )

    @property
    def reads_layers(self) -> bool:
        """Whether the loss compares hidden states, attention or embeddings of the teacher."""
        return max(self.hidden_weight, self.attention_weight, self.embedding_weight) > 0


class ObjectiveConfig(LayerLossConfig, OutputLossConfig):
    """The training loss: a weighted sum of terms."""

    def layers_alone(self) -> ObjectiveConfig:
        """Return the objective of the first of two stages, with only the losses on layers."""
        return self.model_copy(
            update={
                "logits": "mse",
                "temperature": 1.0,
                "logits_weight": 0.0,
                "labels_weight": 0.0,
            }
        )

    def outputs_alone(self) -> ObjectiveConfig:
        """Return the objective of the second of two stages, with only logits and labels."""
        return self.model_copy(
            update={"hidden_weight": 0.0, "attention_weight": 0.0, "embedding_weight": 0.0}
        )

    @model_validator(mode="after")
    def _check_weights(self) -> ObjectiveConfig:
        if self.logits_weight + self.labels_weight == 0 and not self.reads_layers:
            raise ValueError("all weights are 0: nothing to learn from")
        return self
