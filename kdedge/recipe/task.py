"""The tables on what is asked and of which texts: task, data, teacher, transfer set."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from kdedge.recipe.section import FitConfig, Length, Name, Positive, Precision, Section, Weight
from kdedge.runtime.spec import Kind


class DataConfig(Section):
    """Where the examples are, which columns to read, and how they are split."""

    source: str | None = Field(
        None, description="hub id, folder, or package:NAME/FOLDER; none when train is a file"
    )
    config: str | None = Field(
        None, description="configuration of a hub data set, such as sst2 of nyu-mll/glue"
    )
    revision: str | None = Field(None, description="commit or tag of a hub data set")
    train: str = Field("train", description="split name, or a csv, tsv, jsonl or parquet file")
    validation: str | float = Field(
        0.1, description="split, file, or share of train to choose checkpoints on"
    )
    test: str | float = Field(
        "test", description="split, file, or share of train that results are reported on"
    )
    text: str = Field("text", description="column of the (first) text")
    pair: str | None = Field(
        None, description="column of the second text; its presence makes a pair task"
    )
    label: str = Field("label", description="column of the label")
    encoding: str = Field(
        "utf-8",
        description="how files are decoded; of several, such as utf-8, latin-1, the first that fits a file",
    )
    first_words: Positive | None = Field(
        None, description="keep only this many opening words of every text"
    )
    limit: Positive | None = Field(
        None, description="use only this many training examples, drawn by the seed"
    )
    overlap: Literal["error", "drop", "allow"] = Field(
        "error", description="when a text of train also stands in validation or test"
    )

    @field_validator("validation", "test")
    @classmethod
    def _share_is_a_share(cls, value: str | float) -> str | float:
        if isinstance(value, float) and not 0 < value < 1:
            raise ValueError(f"a share of train lies between 0 and 1, not {value}")
        return value


class TaskConfig(Section):
    """What is asked of a text."""

    kind: Kind = "classification"
    labels: list[str] | str | None = Field(
        None, description="label names in order, or a JSON file holding them"
    )
    metric: str | None = Field(None, description="default: accuracy, micro_f1 or pearson, by kind")


class TeacherFit(FitConfig):
    """How the teacher is fine-tuned."""

    epochs: Annotated[float, Field(gt=0, le=1000)] = 2.0
    learning_rate: Annotated[float, Field(gt=0, lt=10, allow_inf_nan=False)] = 6e-5


class TeacherConfig(Section):
    """The big model, or one of several that teach together."""

    name: Name | None = Field(
        None, description="of one among several; default: its place, counted from 1"
    )
    model: str = Field(
        description="folder, package:NAME/FOLDER, or hub id of an encoder or a fine-tuned classifier"
    )
    revision: str | None = None
    fine_tune: bool | None = Field(
        None, description="default: only when the checkpoint has no head for these labels"
    )
    max_length: Length = 128
    fit: TeacherFit = TeacherFit()


class TransferConfig(Section):
    """The texts the student learns from, and what the teacher says of them."""

    shard_size: Positive = 4096
    batch_tokens: Positive = Field(
        4096, description="tokens the teacher reads at once, padding included"
    )
    precision: Precision = Field(
        "auto",
        description="the teacher computes in when it labels; auto: bf16 or fp16 where the device does so natively, else fp32",
    )
    layers_gb: Weight = Field(
        8.0,
        description="room on disk for the teacher's layers, where they are matched; 0: the teacher runs at every step",
    )
