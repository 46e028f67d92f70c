"""The tables task, data, teacher and transfer."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from kdedge.recipe.clean import CleanConfig
from kdedge.recipe.section import (
    Epochs,
    FitConfig,
    LearningRate,
    Length,
    Positive,
    Precision,
    Section,
    Weight,
)
from kdedge.runtime.spec import Kind


class DataConfig(Section):
    """Where the examples are, which columns to read, and how they are split."""

    source: str | None = Field(
        None,
        description="Hub id, folder or package:NAME/FOLDER; not needed if every split is a file.",
    )
    config: str | None = Field(
        None, description="Configuration of a hub data set, such as sst2 of nyu-mll/glue."
    )
    revision: str | None = Field(None, description="Commit or tag of a hub data set.")
    train: str = Field("train", description="Split name, or a csv, tsv, jsonl or parquet file.")
    validation: str | float = Field(
        0.1, description="Split, file or share of train for choosing checkpoints and settings."
    )
    test: str | float = Field(
        "test", description="Split, file or share of train on which results are reported."
    )
    text: str = Field("text", description="Column of the text, or of the first of two texts.")
    pair: str | None = Field(
        None, description="Column of the second text; if it is set, examples are pairs."
    )
    label: str = Field("label", description="Column of the label.")
    encoding: str = Field(
        "utf-8",
        description="Encoding of the files; of several, such as utf-8, latin-1, the first that "
        "fits a file.",
    )
    delimiter: Literal[",", ";", "\t", "|"] | None = Field(
        None,
        description="Character between the columns of a csv file; default: recognised from the "
        "header.",
    )
    first_words: Positive | None = Field(None, description="Shorten every text to this many words.")
    limit: Positive | None = Field(
        None, description="Use only this many training examples, drawn by the seed."
    )
    overlap: Literal["error", "drop", "allow"] = Field(
        "error",
        description="What to do if a text of one split stands in another. Near copies count too, "
        "if they are many and the splits were not drawn from one file.",
    )
    clean: CleanConfig | None = Field(
        None, description="What is removed from texts; default: nothing."
    )

    @field_validator("validation", "test")
    @classmethod
    def _check_share(cls, value: str | float) -> str | float:
        if isinstance(value, float) and not 0 < value < 1:
            raise ValueError(f"a share of train lies between 0 and 1, not {value}")
        return value

    @property
    def clean_new(self) -> tuple[str, ...]:
        """The cleaning steps for texts of a pool and for generated texts."""
        return self.clean.steps if self.clean else ()

    @property
    def clean_labelled(self) -> tuple[str, ...]:
        """The cleaning steps for labelled texts and for every text that a bundle classifies."""
        return self.clean.steps if self.clean and self.clean.labelled else ()


class TaskConfig(Section):
    """What the classifier predicts."""

    kind: Kind = Field(
        "classification",
        description="One label of several, any number of labels, or a number (regression).",
    )
    labels: list[str] | str | None = Field(
        None, description="Label names in the order of their indices, or a JSON file of them."
    )
    metric: str | None = Field(
        None, description="Metric of all scores; default: accuracy, micro_f1 or pearson, by kind."
    )
    threshold: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None,
        description="Probability above which a label of a multilabel task is predicted; "
        "default: 0.5.",
    )

    @model_validator(mode="after")
    def _check_threshold(self) -> TaskConfig:
        if self.threshold is not None and self.kind != "multilabel":
            raise ValueError(f"threshold is for multilabel tasks, and this is a {self.kind}")
        return self


class TeacherFitConfig(FitConfig):
    """How the teacher is fine-tuned."""

    epochs: Epochs = Field(2.0, description="Passes over the training texts.")
    learning_rate: LearningRate = Field(6e-5, description="Highest learning rate of AdamW.")


class TeacherConfig(Section):
    """The teacher model."""

    model: str = Field(
        description="Folder, package:NAME/FOLDER or hub id of an encoder or a classifier."
    )
    revision: str | None = Field(None, description="Commit or tag of a hub model.")
    fine_tune: bool | None = Field(
        None,
        description="Whether to train the model on the task; default: only if it has no "
        "classification head with this number of labels. Set true if its head is of another task.",
    )
    max_length: Length = Field(
        128, description="Tokens per text, special tokens included; longer texts are cut."
    )
    fit: TeacherFitConfig = Field(TeacherFitConfig(), description="How it is fine-tuned.")


class TransferConfig(Section):
    """How the teacher labels the transfer set, the texts the student learns from."""

    shard_size: Positive = Field(4096, description="Texts per resumable piece of work.")
    batch_tokens: Positive | None = Field(
        None,
        description="Tokens in one batch of the teacher, padding included; default: 4096, and on a "
        "GPU the number that proves fastest.",
    )
    precision: Precision = Field(
        "auto",
        description="Number format of the teacher; auto is bf16 or fp16 if the device supports "
        "it, else fp32.",
    )
    layers: Literal["auto", "cached", "live"] = Field(
        "auto",
        description="Whether the teacher's layers are cached on disk or computed at every step; "
        "auto caches them on a CPU and takes what proves faster on a GPU.",
    )
    layers_gb: Weight = Field(
        8.0,
        description="Disk space for the teacher's layers, in GB; if they need more, the teacher "
        "runs at every step.",
    )
