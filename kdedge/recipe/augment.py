"""The table on more texts: sources, and filters they must pass."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from kdedge.recipe.section import FitConfig, Length, Positive, Probability, Section, Weight


class RulesConfig(Section):
    """Texts altered by rule (Tang et al. 2019): words masked, exchanged for words of like use, a window of words kept."""

    mask: Probability = 0.1
    exchange: Probability = Field(
        0.1, description="of a word for another of the same induced part of speech"
    )
    window: Probability = Field(0.25, description="of keeping only a window of words of a text")
    longest_window: Positive = 5

    @model_validator(mode="after")
    def _shares_add_up(self) -> RulesConfig:
        if self.mask + self.exchange > 1:
            raise ValueError(
                f"mask = {self.mask:g} and exchange = {self.exchange:g} of the words are more than all"
            )
        return self


class ReplaceConfig(Section):
    """Texts with words replaced by the candidates of a model (TinyBERT, Jiao et al. 2020)."""

    model: str | None = Field(
        None,
        description="folder or hub id of a masked language model, or neighbours: of words in the teacher's embedding matrix; "
        "default: what the teacher begins from where it has a head for masked words, else neighbours",
    )
    probability: Probability = 0.4
    candidates: Positive = 15


class GeneratorFitConfig(FitConfig):
    """How a language model learns the task's texts."""

    learning_rate: Annotated[float, Field(gt=0, lt=10, allow_inf_nan=False)] = 1e-3
    weight_decay: Weight = 0.1


class GenerateConfig(Section):
    """Texts written by a causal language model that has read the task's training texts."""

    model: str = Field(
        "scratch",
        description="hub id, folder, package: place or .gguf file; scratch: a GPT-2 of the size below",
    )
    revision: str | None = None
    layers: Positive = Field(4, description="of scratch; so are hidden, heads and vocabulary")
    hidden: Positive = 256
    heads: Positive = 4
    vocabulary: Positive = 8000
    max_length: Length = 64
    fit: GeneratorFitConfig = GeneratorFitConfig()
    prompts: list[Literal["bare", "label", "prefix", "second"]] | None = Field(
        None,
        min_length=1,
        description="what is given to go on from, in turn: nothing, a label, opening words, or (of pairs) the first text; default: all that fit",
    )
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    batch_size: Positive = 128

    @model_validator(mode="after")
    def _heads_divide_width(self) -> GenerateConfig:
        if self.hidden % self.heads:
            raise ValueError(f"hidden = {self.hidden} cannot be shared among heads = {self.heads}")
        return self


class PoolConfig(Section):
    """Unlabelled texts of the user's own."""

    file: str = Field(description="a csv, tsv, jsonl or parquet file")
    text: str = "text"
    pair: str | None = None


class FilterConfig(Section):
    """What a made text must pass. Text lengths are in words, or in characters where a language writes no spaces."""

    near: Annotated[float, Field(gt=0, le=1)] = Field(
        0.9, description="Jaccard similarity from which two texts of the set count as one"
    )
    held_out: Annotated[float, Field(gt=0, le=1)] = Field(
        0.6, description="the same against texts of the validation and test splits: strict"
    )
    shortest: Positive | None = Field(None, description="default: the shortest training text")
    longest: Positive | None = Field(None, description="default: the longest training text")
    perplexity: tuple[Probability, Probability] = Field(
        (0.0, 0.98),
        description="of generated text: quantiles of real texts' perplexity between which it must lie; a number: the upper one",
    )
    confidence: tuple[Probability, Probability] = Field(
        (0.0, 1.0), description="band of the teacher's highest probability"
    )
    balance: Annotated[float, Field(ge=1, allow_inf_nan=False)] | None = Field(
        3.0,
        description="times the texts that a label would have in the training proportions: it may not have more",
    )
    agree_with: str | None = Field(
        None, description="a second teacher that must give the same label"
    )

    @field_validator("perplexity", mode="before")
    @classmethod
    def _one_end_is_the_upper(cls, value: Any) -> Any:
        return (0.0, value) if isinstance(value, int | float) else value

    @model_validator(mode="after")
    def _bands_hold_something(self) -> FilterConfig:
        for key, band in (("confidence", self.confidence), ("perplexity", self.perplexity)):
            if band[0] > band[1]:
                raise ValueError(
                    f"{key} = {list(band)} is a band whose lower end lies above its upper one"
                )
        if self.shortest and self.longest and self.shortest > self.longest:
            raise ValueError(f"shortest = {self.shortest} is more than longest = {self.longest}")
        return self


class AugmentConfig(Section):
    """More texts for the transfer set: each source is used when its table is there."""

    size: Annotated[float, Field(ge=0, le=1000)] | Literal["auto"] = Field(
        4.0, description="made texts per training text; auto: as many as still help"
    )
    curve: list[Annotated[float, Field(gt=0, le=1000)]] = Field(
        [1.0, 4.0, 16.0], min_length=1, description="sizes that auto and --curve try, beside 0"
    )
    seeds: Positive = Field(
        1,
        description="trainings by which auto and --curve judge each size and source: several tell a gain from luck",
    )
    rounds: Positive = Field(
        1,
        description="beyond the first, texts are made near those on which student and teacher differ most",
    )
    shard_size: Positive = 2048
    rules: RulesConfig | None = None
    replace: ReplaceConfig | None = None
    generate: GenerateConfig | None = None
    pool: PoolConfig | None = None
    filters: FilterConfig = FilterConfig()

    @model_validator(mode="after")
    def _has_a_source(self) -> AugmentConfig:
        if not (self.rules or self.replace or self.generate or self.pool):
            raise ValueError(
                "names no source of texts: add [augment.rules], [augment.replace], [augment.generate] or [augment.pool]"
            )
        return self
