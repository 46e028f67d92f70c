"""The table augment: sources of new texts, and the filters that reject some of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from kdedge.recipe.section import (
    FitConfig,
    LearningRate,
    Length,
    Positive,
    Probability,
    Section,
    Weight,
)

Multiple = Annotated[float, Field(gt=0, le=1000)]
Similarity = Annotated[float, Field(gt=0, le=1)]


class RulesConfig(Section):
    """Change words of a text by rule (Tang et al. 2019)."""

    mask: Probability = Field(0.1, description="Share of words that are masked.")
    exchange: Probability = Field(
        0.1,
        description="Share of words that are exchanged for another with similar neighbours.",
    )
    window: Probability = Field(
        0.25, description="Probability that only a window of words of a text remains."
    )
    longest_window: Positive = Field(5, description="Words of the longest window.")

    @model_validator(mode="after")
    def _check_shares(self) -> RulesConfig:
        if self.mask + self.exchange > 1:
            raise ValueError(
                f"mask = {self.mask:g} and exchange = {self.exchange:g} add up to more than 1"
            )
        return self


class ReplaceConfig(Section):
    """Replace words by candidates of a language model (TinyBERT, Jiao et al. 2020)."""

    model: str | None = Field(
        None,
        description="Folder or hub id of a masked language model, or neighbours for words that "
        "are near in the teacher's embeddings; default: the teacher's pretrained model if it "
        "predicts masked words, else neighbours.",
    )
    probability: Probability = Field(0.4, description="Probability that a word is replaced.")
    candidates: Positive = Field(15, description="Candidates per word.")

    @property
    def pretrained(self) -> str | None:
        """Folder or hub id of the masked language model, if the recipe names one."""
        return None if self.model == "neighbours" else self.model


class GeneratorFitConfig(FitConfig):
    """How the language model is trained on the task's texts."""

    learning_rate: LearningRate = Field(1e-3, description="Highest learning rate of AdamW.")
    weight_decay: Weight = Field(0.1, description="Weight decay of AdamW.")


class GenerateConfig(Section):
    """Generate texts with a causal language model trained on the task's texts."""

    model: str = Field(
        "scratch",
        description="Hub id, folder, package:NAME/FOLDER or .gguf file; scratch is a GPT-2 of the "
        "size below.",
    )
    revision: str | None = Field(None, description="Commit or tag of a hub model.")
    layers: Positive = Field(4, description="Layers of a model from scratch.")
    hidden: Positive = Field(256, description="Width of a model from scratch.")
    heads: Positive = Field(4, description="Attention heads of a model from scratch.")
    vocabulary: Positive = Field(8000, description="Pieces of a tokenizer from scratch.")
    max_length: Length = Field(64, description="Tokens per text, special tokens included.")
    fit: GeneratorFitConfig = Field(GeneratorFitConfig(), description="How it is trained.")
    prompts: list[Literal["bare", "label", "prefix", "second"]] | None = Field(
        None,
        min_length=1,
        description="What a text begins with, in turn: nothing, a label, opening words, or the "
        "first text of a pair; default: all that fit the task.",
    )
    top_p: Annotated[float, Field(gt=0, le=1)] = Field(
        0.95, description="Share of probability from which the next token is sampled."
    )
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        1.0, description="Temperature of sampling."
    )
    batch_size: Positive = Field(128, description="Texts that are generated together.")

    @property
    def pretrained(self) -> str | None:
        """Folder, .gguf file or hub id of the language model; None if it starts from scratch."""
        return None if self.model == "scratch" else self.model

    @model_validator(mode="after")
    def _check_shape(self) -> GenerateConfig:
        if self.hidden % self.heads:
            raise ValueError(f"hidden = {self.hidden} is not a multiple of heads = {self.heads}")
        return self


class PoolConfig(Section):
    """Unlabelled texts of the user: a file, or the training texts beyond `data.limit`."""

    file: str | None = Field(None, description="A csv, tsv, jsonl, parquet or txt file.")
    beyond_limit: bool = Field(
        False, description="Take the training texts beyond data.limit, without their labels."
    )
    text: str = Field("text", description="Column of the text.")
    pair: str | None = Field(None, description="Column of the second text.")

    @model_validator(mode="after")
    def _has_one_source(self) -> PoolConfig:
        if (self.file is None) == (not self.beyond_limit):
            raise ValueError("set either file or beyond_limit = true")
        return self


class FilterConfig(Section):
    """Which new texts are rejected.

    Lengths are in words, or in characters for languages that write no spaces.
    """

    near: Similarity = Field(
        0.9, description="Jaccard similarity from which two texts of the set are duplicates."
    )
    held_out: Similarity = Field(
        0.6,
        description="Jaccard similarity to a validation or test text from which a text is "
        "rejected.",
    )
    shortest: Positive | None = Field(
        None, description="Shortest text; default: the shortest training text."
    )
    longest: Positive | None = Field(
        None, description="Longest text; default: the longest training text."
    )
    perplexity: tuple[Probability, Probability] = Field(
        (0.0, 0.98),
        description="Quantiles of the validation texts' perplexity between which that of a "
        "generated text must lie; one number is the upper quantile.",
    )
    confidence: tuple[Probability, Probability] = Field(
        (0.0, 1.0), description="Lowest and highest probability of the teacher's label."
    )
    balance: Annotated[float, Field(ge=1, allow_inf_nan=False)] = Field(
        3.0,
        description="Texts that a label may have, as a multiple of its share in the training set; "
        "a large number accepts all.",
    )

    @field_validator("perplexity", mode="before")
    @classmethod
    def _upper_quantile(cls, value: Any) -> Any:
        return (0.0, value) if isinstance(value, int | float) else value

    @model_validator(mode="after")
    def _check_ranges(self) -> FilterConfig:
        for key, (low, high) in (("confidence", self.confidence), ("perplexity", self.perplexity)):
            if low > high:
                raise ValueError(f"{key} = [{low}, {high}]: its lower end lies above its upper end")
        if self.shortest and self.longest and self.shortest > self.longest:
            raise ValueError(f"shortest = {self.shortest} is more than longest = {self.longest}")
        return self


LARGEST_SIZE = 1e6
"""Most new texts per training text: a few labels may go with a large pool."""


class AugmentConfig(Section):
    """New texts for the transfer set; a source is used if its table exists."""

    size: Annotated[float, Field(ge=0, le=LARGEST_SIZE)] | Literal["auto"] = Field(
        4.0,
        description="New texts per training text; auto finds how many still help. With 0 no source "
        "is used.",
    )
    curve: list[Multiple] = Field(
        [1.0, 4.0, 16.0],
        min_length=1,
        description="Sizes that auto and --curve measure, in addition to 0.",
    )
    seeds: Positive = Field(
        1, description="Trainings per size and source by which auto and --curve compare them."
    )
    apart: Annotated[int, Field(ge=1, le=100_000)] = Field(
        2000,
        description="New texts that auto and --curve keep apart from training, to compare students "
        "by how well they agree with the teacher on them; at most a third of the texts of one "
        "source.",
    )
    shard_size: Positive = Field(2048, description="Texts per resumable piece of work.")
    rules: RulesConfig | None = Field(None, description="Change words by rule.")
    replace: ReplaceConfig | None = Field(None, description="Replace words by a model's.")
    generate: GenerateConfig | None = Field(None, description="Generate texts with a model.")
    pool: PoolConfig | None = Field(None, description="Take unlabelled texts.")
    filters: FilterConfig = Field(FilterConfig(), description="Which new texts are rejected.")

    @property
    def num_sources(self) -> int:
        """The number of sources that the recipe names."""
        sources = (self.rules, self.replace, self.generate, self.pool)
        return sum(source is not None for source in sources)

    def size_to_make(self, labelled: int) -> float:
        """Return how many new texts a run makes for each of its labelled texts.

        With "auto" that is the largest size of the learning curve, plus `apart` texts from each
        source: all sources make equally many texts, and any of them may provide those kept apart.
        """
        if self.size != "auto":
            return self.size
        return max(self.curve) + self.num_sources * self.apart / labelled

    @model_validator(mode="after")
    def _check_sources(self) -> AugmentConfig:
        if not self.num_sources:
            raise ValueError(
                "names no source of texts: add [augment.rules], [augment.replace], "
                "[augment.generate] or [augment.pool]"
            )
        return self
