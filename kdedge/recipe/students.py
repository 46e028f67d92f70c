"""The tables of students: architecture and training."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from kdedge.recipe.general import GeneralConfig
from kdedge.recipe.objective import ObjectiveConfig
from kdedge.recipe.quantize import BiLstmQuantizeConfig, QuantizeConfig
from kdedge.recipe.section import (
    Epochs,
    FitConfig,
    LearningRate,
    Length,
    Name,
    Positive,
    Section,
)
from kdedge.recipe.sizes import bert_parameters, bilstm_parameters, usable_positions
from kdedge.runtime.spec import TaskSpec

WORDPIECE_SIZE = 8000
"""Pieces of a tokenizer that is trained, unless the recipe sets the number."""


class BiLstmFitConfig(FitConfig):
    """How a BiLSTM is trained."""

    epochs: Epochs = Field(5.0, description="Passes over the training texts.")
    learning_rate: LearningRate = Field(2e-3, description="Highest learning rate of AdamW.")


class LayersFirstConfig(FitConfig):
    """A first stage of training on the teacher's layers; logits and labels follow in the second."""

    checks: Literal[1] = Field(1, description="The stage ends with its last weights.")


class StudentBase(Section):
    """What all kinds of students have in common."""

    kind: str = Field(description="The kind of student.")
    name: Name | None = Field(
        None, description="Name of the student's folder and in reports; default: its kind."
    )
    start: str = Field("teacher", description="Where the first weights come from.")
    assistant: Name | None = Field(
        None,
        description="Name of an earlier TinyBERT of this recipe: start = teacher or shrink takes "
        "its weights instead of the teacher's. The logits are still the teacher's.",
    )
    max_length: Length = Field(
        128, description="Tokens per text, special tokens included; longer texts are cut."
    )
    tokenizer: str | None = Field(
        None,
        description="Folder or hub id, or wordpiece to train one on the training texts; default: "
        "that of the start, else the teacher's. Embeddings of another vocabulary are mapped piece "
        "by piece.",
    )
    vocabulary: Positive | None = Field(
        None,
        description="Pieces to keep of a WordPiece vocabulary before training, default: all; or "
        f"pieces of a trained one, default: {WORDPIECE_SIZE}.",
    )
    baseline: bool = Field(
        True, description="Whether to also train the same student on the labels only."
    )
    fit: FitConfig = Field(FitConfig(), description="How the student is trained.")
    objective: ObjectiveConfig = Field(ObjectiveConfig(), description="The training loss.")

    @property
    def key(self) -> str:
        """The name of the student, unique in a recipe."""
        return self.name or self.kind

    @property
    def checkpoint(self) -> str | None:
        """The folder or hub id of the checkpoint that the student starts from, or None."""
        return None if self.start in ("teacher", "shrink", "scratch") else self.start

    @property
    def first_stage(self) -> FitConfig | None:
        """Settings of a first training stage on layers only; None if there is no such stage."""
        return None

    @property
    def general_stage(self) -> GeneralConfig | None:
        """Settings of the general student that it starts from; None if there is none."""
        return None

    @property
    def pretrained(self) -> tuple[str, ...]:
        """Folders or hub ids of the models that it comes from, besides the recipe's teacher."""
        models = [self.checkpoint]
        if self.general_stage:
            models.append(self.general_stage.teacher)
        return tuple(model for model in models if model)

    @abstractmethod
    def parameters(self, pieces: int, source: Mapping[str, Any], spec: TaskSpec) -> int | None:
        """Count the parameters of the student; None if they depend on an unknown shape.

        Args:
            pieces: Size of its vocabulary.
            source: The config.json of the model that it starts from: its assistant, or the teacher.
            spec: The task that decides the number of outputs.
        """

    @model_validator(mode="after")
    def _check_start(self) -> Self:
        if self.tokenizer == "wordpiece" and self.checkpoint:
            raise ValueError(
                f'start = "{self.start}" has embeddings of another vocabulary than '
                'tokenizer = "wordpiece" trains: set start = "teacher" or "scratch"'
            )
        return self

    @model_validator(mode="after")
    def _check_assistant(self) -> Self:
        if self.assistant and self.start not in ("teacher", "shrink"):
            raise ValueError(
                f'start = "{self.start}" does not read the assistant: set start = "teacher" or '
                '"shrink", or remove assistant'
            )
        if self.assistant and self.general_stage:
            raise ValueError(
                "a student starts from its assistant or from a general student, not from both"
            )
        return self


class TinyBertConfig(StudentBase):
    """A BERT of any depth and width."""

    kind: Literal["tinybert"] = Field("tinybert", description="A BERT of any depth and width.")
    start: str = Field(
        "teacher",
        description="teacher copies layers, shrink prunes the teacher, scratch is random; or a "
        "folder or hub id of a BERT. Teachers can be BERT, RoBERTa, XLM-RoBERTa, CamemBERT, MPNet, "
        "DistilBERT or ELECTRA.",
    )
    teacher_layers: list[Positive] | None = Field(
        None,
        description="Teacher layers that start = teacher and shrink take, counted from 1; default: "
        "uniform.",
    )
    layers: Positive = Field(4, description="Transformer layers.")
    hidden: Positive = Field(312, description="Width of the hidden states.")
    heads: Positive = Field(
        12,
        description="Attention heads; start = shrink keeps the teacher's strongest heads, and "
        "narrows them if the width demands it.",
    )
    intermediate: Positive = Field(1200, description="Width of the feed-forward layers.")
    activation: Literal["gelu", "relu"] | None = Field(
        None,
        description="Activation of the feed-forward layers; default: that of the start, else gelu.",
    )
    layers_first: LayersFirstConfig | None = Field(
        None, description="A first stage of training on the layers only, as TinyBERT has it."
    )
    general: GeneralConfig | None = Field(
        None,
        description="First train a general student on the layers of the teacher before "
        "fine-tuning, as TinyBERT has it; all tasks can start from it. `start` is then the start "
        "of the general student.",
    )
    quantize: QuantizeConfig = Field(
        QuantizeConfig(), description="How the student is quantized to int8."
    )

    @property
    def first_stage(self) -> FitConfig | None:
        return self.layers_first

    @property
    def general_stage(self) -> GeneralConfig | None:
        return self.general

    def shape(self, pieces: int, source: Mapping[str, Any]) -> dict[str, int]:
        """Return the sizes in the student's config.json; for the arguments see `parameters`."""
        positions = max(512, self.max_length)
        if self.start in ("teacher", "shrink"):
            positions = usable_positions(source)
        return {
            "vocab_size": pieces,
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "intermediate_size": self.intermediate,
            "max_position_embeddings": positions,
        }

    def parameters(self, pieces: int, source: Mapping[str, Any], spec: TaskSpec) -> int | None:
        return bert_parameters(self.shape(pieces, source), spec.outputs)

    @model_validator(mode="after")
    def _check_shape(self) -> TinyBertConfig:
        if self.hidden % self.heads:
            raise ValueError(f"hidden = {self.hidden} is not a multiple of heads = {self.heads}")
        if self.teacher_layers is not None and len(self.teacher_layers) != self.layers:
            count = len(self.teacher_layers)
            raise ValueError(f"teacher_layers names {count} layers, but layers = {self.layers}")
        if self.teacher_layers is not None and self.start not in ("teacher", "shrink"):
            raise ValueError(
                f'start = "{self.start}" does not read teacher_layers: set start = "teacher" or '
                '"shrink", or remove teacher_layers'
            )
        return self

    @model_validator(mode="after")
    def _check_stages(self) -> TinyBertConfig:
        objective = self.objective
        reads_outputs = objective.logits_weight + objective.labels_weight > 0
        if self.layers_first and not (objective.reads_layers and reads_outputs):
            raise ValueError(
                "layers_first trains in two stages: the first needs a hidden_weight, "
                "attention_weight or embedding_weight above 0, the second a logits_weight or "
                "labels_weight"
            )
        return self


class BiLstmConfig(StudentBase):
    """One bidirectional LSTM layer (Tang et al. 2019)."""

    kind: Literal["bilstm"] = Field("bilstm", description="One bidirectional LSTM layer.")
    start: Literal["teacher", "scratch"] = Field(
        "teacher", description="Where the word embeddings come from."
    )
    embedding: Positive | None = Field(
        None, description="Width of the word embeddings; default: the teacher's."
    )
    hidden: Positive = Field(150, description="Width of the LSTM in each direction.")
    head: Positive = Field(200, description="Width of the hidden layer before the logits.")
    cross_attention: bool = Field(
        False,
        description="Compare the texts of a pair token by token (ESIM) instead of by the final "
        "states of the LSTM.",
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.2, description="Share of activations that training sets to 0."
    )
    fit: BiLstmFitConfig = Field(BiLstmFitConfig(), description="How the student is trained.")
    quantize: BiLstmQuantizeConfig = Field(
        BiLstmQuantizeConfig(), description="How the student is quantized to int8."
    )

    def parameters(self, pieces: int, source: Mapping[str, Any], spec: TaskSpec) -> int | None:
        width = self.embedding or source.get("embedding_size") or source.get("hidden_size")
        if width is None:
            return None
        return bilstm_parameters(
            pieces,
            int(width),
            self.hidden,
            self.head,
            spec.outputs,
            pair=spec.pair,
            cross_attention=self.cross_attention,
        )

    @model_validator(mode="before")
    @classmethod
    def _has_no_general_student(cls, document: Any) -> Any:
        if isinstance(document, dict) and document.get("general") is not None:
            raise ValueError(
                "a BiLSTM has no layers to match, and a general student learns from layers alone: "
                "remove the table general"
            )
        return document

    @model_validator(mode="after")
    def _check_objective(self) -> BiLstmConfig:
        if self.objective.reads_layers:
            raise ValueError(
                "a BiLSTM has no layers to match: hidden, attention and embedding weights must be 0"
            )
        return self


StudentConfig = TinyBertConfig | BiLstmConfig

STUDENT_KINDS: dict[str, type[StudentBase]] = {"tinybert": TinyBertConfig, "bilstm": BiLstmConfig}
