"""The tables on students: what they are, what they match, how they learn the numbers of an int8 file."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, Union, get_args

from pydantic import Field, model_validator

from kdedge.recipe.section import FitConfig, Length, Name, Positive, Section, Weight

Term = Literal["logits", "labels", "hidden", "attention", "embedding"]
TERMS: tuple[Term, ...] = get_args(Term)


class ObjectiveConfig(Section):
    """What the student is asked to match, and how much each part weighs."""

    logits: Literal["kl", "mse", "cosine", "soft_ce"] = Field(
        "kl", description="of a regression mse, by default too"
    )
    logits_weight: Weight = 1.0
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        1.0, description="of kl alone"
    )
    labels_weight: Weight = 0.0
    hidden: Literal["mse", "cosine", "pkd", "cka"] = Field(
        "mse",
        description="pkd: the first token's states scaled to length 1; cka: needs no projection",
    )
    hidden_weight: Weight = 0.0
    attention: Literal[
        "scores", "probabilities", "kl", "value_relation", "qk_relation", "minilm"
    ] = Field(
        "scores",
        description="the last three (minilm: both relations) work for any numbers of heads",
    )
    attention_weight: Weight = 0.0
    relation_heads: Positive | None = Field(
        None,
        description="parts the vectors of relations are cut into; default: the teacher's heads where they fit",
    )
    embedding_weight: Weight = 0.0
    layer_map: Literal["uniform", "first", "last", "skip", "learned"] | list[tuple[int, int]] = (
        Field(
            "uniform",
            description="which teacher layer each student layer matches, or pairs [student, teacher]",
        )
    )
    ramp: dict[Term, tuple[Weight, Weight]] = Field(
        {}, description="factor on a term's weight at the first and the last batch, linear between"
    )
    balanced: bool = Field(
        False,
        description="divide each term by its running magnitude, so that weights are shares of the loss",
    )
    per_example: bool = Field(
        False,
        description="text by text, follow the teacher as far as the label bears it out, and the label for the rest",
    )

    @property
    def reads_layers(self) -> bool:
        """Whether the teacher's logits are not enough."""
        return max(self.hidden_weight, self.attention_weight, self.embedding_weight) > 0

    def idle(self) -> set[str]:
        """Keys that decide nothing as the others stand: a stage made with other values of them is the same stage."""
        off: dict[str, Any] = {
            "relation_heads": None,
            "ramp": {},
            "balanced": False,
            "per_example": False,
        }
        return {key for key, value in off.items() if getattr(self, key) == value} | {
            key for key in ("hidden", "attention") if not getattr(self, f"{key}_weight")
        }

    def layers_alone(self) -> ObjectiveConfig:
        """The first of two stages."""
        return self.model_copy(
            update={
                "logits": "mse",
                "temperature": 1.0,
                "logits_weight": 0.0,
                "labels_weight": 0.0,
                "per_example": False,
            }
        )

    def answers_alone(self) -> ObjectiveConfig:
        """The second of two stages."""
        return self.model_copy(
            update={"hidden_weight": 0.0, "attention_weight": 0.0, "embedding_weight": 0.0}
        )

    @model_validator(mode="after")
    def _asks_for_something(self) -> ObjectiveConfig:
        if self.logits_weight + self.labels_weight == 0 and not self.reads_layers:
            raise ValueError("all weights are 0: nothing to learn from")
        return self

    @model_validator(mode="after")
    def _terms_are_there(self) -> ObjectiveConfig:
        idle = [name for name in self.ramp if not getattr(self, f"{name}_weight")]
        if idle:
            raise ValueError(f"ramp names {', '.join(idle)}, whose weight is 0")
        if self.per_example and not (self.logits_weight and self.labels_weight):
            raise ValueError(
                "per_example divides each text between teacher and label: logits_weight and labels_weight must both be above 0"
            )
        return self


RESIDUAL = ObjectiveConfig(logits="mse")
"""What an assistant is asked to match: the mean over texts and outputs of (teacher - student - assistant)²."""


class QuantizeConfig(Section):
    """How a student learns the numbers of its int8 file."""

    steps: Annotated[int, Field(ge=0)] = Field(
        300, description="of quantization-aware tuning; 0: calibration alone"
    )
    batch_size: Positive = 32
    learning_rate: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] = 2e-5
    float_weight: Weight = Field(
        1.0, description="of the float student's logits beside the teacher's"
    )
    hidden_weight: Weight = Field(1.0, description="of the float student's hidden states")
    checks: Positive = 3
    calibration_texts: Positive = 256
    calibration: Literal["best", "minmax", "percentile", "moving_average"] = Field(
        "best", description="how ranges are found; best: the share of values by logits"
    )
    attention: Literal["float", "integers"] = Field(
        "float",
        description="the two products of attention, queries with keys and shares with values; integers may pay on texts of 100 tokens and more",
    )
    learn_ranges: bool = Field(
        True, description="whether tuning moves the ranges too (LSQ), or only the weights"
    )
    range_learning_rate: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] = Field(
        2e-3, description="of a range's ends, in widths of that range"
    )
    keep_float_above: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None, description="logit change above which a layer stays in fp32"
    )
    largest_drop: Weight = Field(
        0.01,
        description="loss of the int8 file on the validation split above which the bundle holds the float file alone",
    )
    trim_vocab: Positive | None = Field(
        None, description="pieces to keep of a WordPiece vocabulary after training; default: all"
    )


class BiLstmQuantizeConfig(QuantizeConfig):
    """How a BiLSTM learns them."""

    learning_rate: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] = 1e-4
    attention: Literal["float"] = Field("float", description="a BiLSTM has none")


class BiLstmFit(FitConfig):
    """How a BiLSTM is trained."""

    epochs: Annotated[float, Field(gt=0, le=1000)] = 5.0
    learning_rate: Annotated[float, Field(gt=0, lt=10, allow_inf_nan=False)] = 2e-3


class LayersFirst(FitConfig):
    """A first stage of training on the teacher's layers alone; the objective's logits and labels come in the second."""

    epochs: Annotated[float, Field(gt=0, le=1000)] = 3.0
    checks: Literal[1] = Field(1, description="its last weights are the ones that count")


class StudentBase(Section):
    name: Name | None = None
    max_length: Length = 128
    tokenizer: str | None = Field(
        None,
        description="folder or hub id; wordpiece: one learned from the training texts; default: of the start, else the teacher's",
    )
    vocabulary: Positive | None = Field(
        None,
        description="pieces to keep of a WordPiece vocabulary, chosen by labelled texts and the pool before training, default: all; or to learn, default: 8000",
    )
    baseline: bool = Field(
        True, description="also train the same student on the labels alone, to compare with"
    )
    fit: FitConfig = FitConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    assistant: Student | None = Field(
        None,
        description="a second student, trained on what the first leaves of the teacher's logits; answers are their sum",
    )

    @model_validator(mode="after")
    def _reads_as_its_start_does(self) -> Self:
        start = getattr(self, "start", "scratch")
        if self.tokenizer == "wordpiece" and start != "scratch":
            raise ValueError(
                f'start = "{start}" brings embeddings of another vocabulary than tokenizer = "wordpiece" learns: set start = "scratch"'
            )
        return self

    @model_validator(mode="after")
    def _assistant_learns_the_residual(self) -> Self:
        if self.assistant is None:
            return self
        fixed = ("name", "baseline", "objective", "quantize", "assistant", "layers_first")
        given = [
            key
            for key in fixed
            if getattr(self.assistant, key, None) != _default(self.assistant, key)
            and getattr(self.assistant, key, None) != RESIDUAL
        ]
        if given:
            raise ValueError(
                f"an assistant takes no {' or '.join(given)}: it learns teacher minus student, and nothing else"
            )
        return self


def _default(section: Section, key: str) -> Any:
    field = type(section).model_fields.get(key)
    return None if field is None else field.default


class TinyBertConfig(StudentBase):
    """A BERT of any depth and width."""

    kind: Literal["tinybert"]
    start: str = Field(
        "teacher",
        description="teacher, shrink (cut out of the teacher), scratch, or a folder or hub id of a BERT checkpoint",
    )
    teacher_layers: list[Positive] | None = Field(
        None, description="1-based layers to start from; default: uniform"
    )
    layers: Positive = 4
    hidden: Positive = 312
    heads: Positive = Field(
        12,
        description="shrink keeps the teacher's strongest heads whole where they may be as wide as there, and narrows them else",
    )
    intermediate: Positive = 1200
    activation: Literal["gelu", "relu"] | None = Field(
        None, description="of the feed-forward units; default: of the start, from scratch gelu"
    )
    layers_first: LayersFirst | None = Field(
        None, description="two stages, as TinyBERT is trained; default: everything at once"
    )
    quantize: QuantizeConfig = QuantizeConfig()

    @model_validator(mode="after")
    def _heads_divide_width(self) -> TinyBertConfig:
        if self.hidden % self.heads:
            raise ValueError(f"hidden = {self.hidden} cannot be shared among heads = {self.heads}")
        if self.teacher_layers is not None and len(self.teacher_layers) != self.layers:
            raise ValueError(
                f"teacher_layers names {len(self.teacher_layers)} layers, but layers = {self.layers}"
            )
        return self

    @model_validator(mode="after")
    def _both_stages_have_something_to_learn(self) -> TinyBertConfig:
        if self.layers_first and not (
            self.objective.reads_layers
            and self.objective.logits_weight + self.objective.labels_weight
        ):
            raise ValueError(
                "layers_first trains in two stages: layers (hidden, attention or embedding_weight), then answers (logits or labels_weight)"
            )
        return self


class BiLstmConfig(StudentBase):
    """One bidirectional LSTM layer (Tang et al. 2019)."""

    kind: Literal["bilstm"]
    start: Literal["teacher", "scratch"] = Field(
        "teacher", description="where the word embeddings come from"
    )
    embedding: Positive | None = Field(
        None, description="width of the word embeddings; default: the teacher's"
    )
    hidden: Positive = 150
    head: Positive = 200
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    fit: BiLstmFit = BiLstmFit()
    quantize: BiLstmQuantizeConfig = BiLstmQuantizeConfig()

    @model_validator(mode="after")
    def _has_no_layers(self) -> BiLstmConfig:
        if self.objective.reads_layers:
            raise ValueError(
                "a BiLSTM has no layers to match: hidden, attention and embedding weights must be 0"
            )
        return self


Student = Annotated[Union[TinyBertConfig, BiLstmConfig], Field(discriminator="kind")]

TinyBertConfig.model_rebuild()
BiLstmConfig.model_rebuild()
