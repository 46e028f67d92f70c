"""One experiment as a value, read from TOML: everything that decides a run, and nothing else."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from kdedge.errors import UsageError
from kdedge.runtime.spec import Kind

Positive = Annotated[int, Field(gt=0)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]


Length = Annotated[int, Field(ge=4, description="tokens, special ones included")]
STAGES = frozenset(
    ("teacher", "teacher-bundle", "generator", "augment", "transfer", "student", "student-int8", "layers", "tune", "undistilled", "bundle", "bench")
)
"""Folders of a run, which no student can be named after."""


class Section(BaseModel):
    """A table of the recipe: frozen, and a key it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(Section):
    """Where the examples are, which columns to read, and how they are split."""

    source: str | None = Field(None, description="hub id, folder, or package:NAME/FOLDER; none when train is a file")
    config: str | None = Field(None, description="configuration of a hub data set, such as sst2 of nyu-mll/glue")
    revision: str | None = Field(None, description="commit or tag of a hub data set")
    train: str = Field("train", description="split name, or a csv, tsv, jsonl or parquet file")
    select: str | float = Field(0.1, description="split, file, or share of train to choose checkpoints on")
    report: str | float = Field("test", description="split, file, or share of train that results are reported on")
    text: str = Field("text", description="column of the (first) text")
    pair: str | None = Field(None, description="column of the second text; its presence makes a pair task")
    label: str = Field("label", description="column of the label")
    encoding: str = Field("utf-8", description="how files are decoded; of several, such as utf-8, latin-1, the first that fits a file")
    first_words: Positive | None = Field(None, description="keep only this many opening words of every text")
    limit: Positive | None = Field(None, description="use only this many training examples, drawn by the seed")
    overlap: Literal["refuse", "drop", "allow"] = Field("refuse", description="when a text of train also stands in select or report")

    @field_validator("select", "report")
    @classmethod
    def _share_is_a_share(cls, value: str | float) -> str | float:
        if isinstance(value, float) and not 0 < value < 1:
            raise ValueError(f"a share of train lies between 0 and 1, not {value}")
        return value


class TaskSection(Section):
    """What is asked of a text."""

    kind: Kind = "classification"
    labels: list[str] | str | None = Field(None, description="label names in order, or a JSON file holding them")
    metric: str | None = Field(None, description="default: accuracy, micro_f1 or pearson, by kind")


class Fit(Section):
    """How one model is trained."""

    epochs: Annotated[float, Field(gt=0, le=1000)] = 3.0
    batch_size: Positive = 32
    gradient_accumulation: Positive = 1
    learning_rate: Annotated[float, Field(gt=0, lt=10, allow_inf_nan=False)] = 5e-5
    warmup: Annotated[float, Field(ge=0, lt=1)] = Field(0.1, description="share of all steps")
    weight_decay: Weight = 0.01
    checks: Positive = Field(3, description="how often the select split is measured and a checkpoint kept, in all")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field("auto", description="auto: bf16 or fp16 where the device computes in it natively, else fp32")


class TeacherFit(Fit):
    """How the teacher is fine-tuned."""

    epochs: Annotated[float, Field(gt=0, le=1000)] = 2.0
    learning_rate: Annotated[float, Field(gt=0, lt=10, allow_inf_nan=False)] = 6e-5


class BiLstmFit(Fit):
    """How a BiLSTM is trained."""

    epochs: Annotated[float, Field(gt=0, le=1000)] = 5.0
    learning_rate: Annotated[float, Field(gt=0, lt=10, allow_inf_nan=False)] = 1e-3


class Teacher(Section):
    """The big model."""

    model: str = Field(description="folder, package:NAME/FOLDER, or hub id of an encoder or a fine-tuned classifier")
    revision: str | None = None
    fine_tune: bool | None = Field(None, description="default: only when the checkpoint has no head for these labels")
    max_length: Length = 128
    fit: TeacherFit = TeacherFit()


class Transfer(Section):
    """The texts the student learns from, and what the teacher says of them."""

    shard_size: Positive = 4096
    batch_tokens: Positive = Field(4096, description="tokens the teacher reads at once, padding included")


class Rules(Section):
    """Texts altered by rule (Tang et al. 2019): words masked, exchanged for words of like use, a window of words kept."""

    mask: Probability = 0.1
    exchange: Probability = Field(0.1, description="of a word for another of the same induced part of speech")
    window: Probability = Field(0.25, description="of keeping only a window of words of a text")
    longest_window: Positive = 5


class Replace(Section):
    """Texts with words replaced by the candidates of a model (TinyBERT, Jiao et al. 2020)."""

    model: str | None = Field(None, description="folder or hub id of a masked language model; default: none, but neighbours in the teacher's embedding matrix")
    probability: Probability = 0.4
    candidates: Positive = 15


class GeneratorFit(Fit):
    """How a language model learns the task's texts."""

    learning_rate: Annotated[float, Field(gt=0, lt=10, allow_inf_nan=False)] = 1e-3
    weight_decay: Weight = 0.1


class Generate(Section):
    """Texts written by a causal language model that has read the task's training texts."""

    model: str = Field("scratch", description="hub id, folder, package: place or .gguf file; scratch: a GPT-2 of the size below")
    revision: str | None = None
    layers: Positive = Field(4, description="of scratch; so are hidden, heads and vocabulary")
    hidden: Positive = 256
    heads: Positive = 4
    vocabulary: Positive = 8000
    max_length: Length = 64
    fit: GeneratorFit = GeneratorFit()
    prompts: list[Literal["bare", "label", "prefix", "second"]] | None = Field(
        None, description="what is given to go on from, in turn: nothing, a label, opening words, or (of pairs) the first text; default: all that fit"
    )
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    batch_size: Positive = 128

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Generate:
        if self.hidden % self.heads:
            raise ValueError(f"hidden = {self.hidden} cannot be shared among heads = {self.heads}")
        return self


class Pool(Section):
    """Unlabelled texts of the user's own."""

    file: str = Field(description="a csv, tsv, jsonl or parquet file")
    text: str = "text"
    pair: str | None = None


class Gates(Section):
    """What a made text must pass. Text lengths are in words, or in characters where a language writes no spaces."""

    near: Annotated[float, Field(gt=0, le=1)] = Field(0.9, description="Jaccard similarity from which two texts of the set count as one")
    held_out: Annotated[float, Field(gt=0, le=1)] = Field(0.6, description="the same against texts of the select and report splits: strict")
    shortest: Positive | None = Field(None, description="default: the shortest training text")
    longest: Positive | None = Field(None, description="default: the longest training text")
    perplexity: Annotated[float, Field(gt=0, le=1)] = Field(0.98, description="of generated text: quantile of real texts' perplexity that it may not exceed")
    confidence: tuple[Probability, Probability] = Field((0.0, 1.0), description="band of the teacher's highest probability")
    balance: Annotated[float, Field(ge=1, allow_inf_nan=False)] | None = Field(
        3.0, description="times the texts that a label would have in the training proportions: it may not have more"
    )
    agree_with: str | None = Field(None, description="a second teacher that must give the same label")


class Augment(Section):
    """More texts for the transfer set: each source is used when its table is there."""

    size: Annotated[float, Field(ge=0, le=1000)] | Literal["auto"] = Field(4.0, description="made texts per training text; auto: as many as still help")
    curve: list[Annotated[float, Field(gt=0, le=1000)]] = Field([1.0, 4.0, 16.0], min_length=1, description="sizes that auto and --curve try, beside 0")
    rounds: Positive = Field(1, description="beyond the first, texts are made near those on which student and teacher differ most")
    shard_size: Positive = 2048
    rules: Rules | None = None
    replace: Replace | None = None
    generate: Generate | None = None
    pool: Pool | None = None
    gates: Gates = Gates()

    @model_validator(mode="after")
    def _has_a_source(self) -> Augment:
        if not (self.rules or self.replace or self.generate or self.pool):
            raise ValueError("names no source of texts: add [augment.rules], [augment.replace], [augment.generate] or [augment.pool]")
        return self


Term = Literal["logits", "labels", "hidden", "attention", "embedding"]
TERMS: tuple[Term, ...] = get_args(Term)


class Objective(Section):
    """What the student is asked to match, and how much each part weighs."""

    logits: Literal["mse", "kl", "cosine", "soft_ce"] = "mse"
    logits_weight: Weight = 1.0
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(1.0, description="of kl alone")
    labels_weight: Weight = 0.0
    hidden: Literal["mse", "cosine", "pkd", "cka"] = Field("mse", description="pkd: the first token's states scaled to length 1; cka: needs no projection")
    hidden_weight: Weight = 0.0
    attention: Literal["scores", "probabilities", "kl", "value_relation", "qk_relation", "minilm"] = Field(
        "scores", description="the last three (minilm: both relations) work for any numbers of heads"
    )
    attention_weight: Weight = 0.0
    relation_heads: Positive | None = Field(None, description="parts the vectors of relations are cut into; default: the teacher's heads where they fit")
    embedding_weight: Weight = 0.0
    layer_map: Literal["uniform", "first", "last", "skip", "learned"] | list[tuple[int, int]] = Field(
        "uniform", description="which teacher layer each student layer matches, or pairs [student, teacher]"
    )
    ramp: dict[Term, tuple[Weight, Weight]] = Field({}, description="factor on a term's weight at the first and the last batch, linear between")
    balanced: bool = Field(False, description="divide each term by its running magnitude, so that weights are shares of the loss")
    per_example: bool = Field(False, description="text by text, follow the teacher as far as the label bears it out, and the label for the rest")

    @property
    def reads_layers(self) -> bool:
        """Whether the teacher must run beside the student: its stored logits are not enough."""
        return max(self.hidden_weight, self.attention_weight, self.embedding_weight) > 0

    def idle(self) -> set[str]:
        """Keys that decide nothing as the others stand: a stage made with other values of them is the same stage."""
        off: dict[str, Any] = {"relation_heads": None, "ramp": {}, "balanced": False, "per_example": False}
        return {key for key, value in off.items() if getattr(self, key) == value} | {
            key for key in ("hidden", "attention") if not getattr(self, f"{key}_weight")
        }

    def layers_alone(self) -> Objective:
        """The first of two stages."""
        return self.model_copy(update={"logits_weight": 0.0, "labels_weight": 0.0, "per_example": False})

    def answers_alone(self) -> Objective:
        """The second of two stages."""
        return self.model_copy(update={"hidden_weight": 0.0, "attention_weight": 0.0, "embedding_weight": 0.0})

    @model_validator(mode="after")
    def _asks_for_something(self) -> Objective:
        if self.logits_weight + self.labels_weight == 0 and not self.reads_layers:
            raise ValueError("all weights are 0: nothing to learn from")
        return self

    @model_validator(mode="after")
    def _terms_are_there(self) -> Objective:
        idle = [name for name in self.ramp if not getattr(self, f"{name}_weight")]
        if idle:
            raise ValueError(f"ramp names {', '.join(idle)}, whose weight is 0")
        if self.per_example and not (self.logits_weight and self.labels_weight):
            raise ValueError("per_example divides each text between teacher and label: logits_weight and labels_weight must both be above 0")
        return self


class Quantize(Section):
    """How a student learns the numbers of its int8 file."""

    steps: Annotated[int, Field(ge=0)] = Field(300, description="of quantization-aware tuning; 0: calibration alone")
    batch_size: Positive = 32
    learning_rate: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] = 2e-5
    hidden_weight: Weight = Field(1.0, description="of the float student's hidden states beside the teacher's logits")
    checks: Positive = 3
    calibration_texts: Positive = 256
    calibration: Literal["best", "minmax", "percentile", "moving_average"] = Field(
        "best", description="how ranges are found; best: the share of values by logits"
    )
    learn_ranges: bool = Field(True, description="whether tuning moves the ranges too (LSQ), or only the weights")
    keep_float_above: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(None, description="logit change above which a layer stays in fp32")
    largest_drop: Weight = Field(0.01, description="loss of the int8 file on the select split above which the bundle holds the float file alone")
    trim_vocab: Positive | None = Field(None, description="pieces to keep of a WordPiece vocabulary after training; default: all")


class BiLstmQuantize(Quantize):
    """How a BiLSTM learns them."""

    learning_rate: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] = 1e-4


class LayersFirst(Fit):
    """A first stage of training on the teacher's layers alone; the objective's logits and labels come in the second."""

    epochs: Annotated[float, Field(gt=0, le=1000)] = 3.0
    checks: Literal[1] = Field(1, description="its last weights are the ones that count")


class StudentBase(Section):
    name: Name | None = None
    max_length: Length = 128
    tokenizer: str | None = Field(None, description="folder or hub id; default: of the start, else the teacher's")
    vocabulary: Positive | None = Field(None, description="pieces to keep of a WordPiece vocabulary, chosen on the transfer set before training; default: all")
    undistilled: bool = Field(True, description="also train the same student on the labels alone, to compare with")
    fit: Fit = Fit()
    objective: Objective = Objective()


class TinyBert(StudentBase):
    """A BERT of any depth and width."""

    kind: Literal["tinybert"]
    start: str = Field("teacher", description="teacher, shrink (cut out of the teacher), scratch, or a folder or hub id of a BERT checkpoint")
    teacher_layers: list[Positive] | None = Field(None, description="1-based layers to start from; default: uniform")
    layers: Positive = 4
    hidden: Positive = 312
    heads: Positive = 12
    intermediate: Positive = 1200
    layers_first: LayersFirst | None = Field(None, description="two stages, as TinyBERT is trained; default: everything at once")
    quantize: Quantize = Quantize()

    @model_validator(mode="after")
    def _heads_divide_width(self) -> TinyBert:
        if self.hidden % self.heads:
            raise ValueError(f"hidden = {self.hidden} cannot be shared among heads = {self.heads}")
        if self.teacher_layers is not None and len(self.teacher_layers) != self.layers:
            raise ValueError(f"teacher_layers names {len(self.teacher_layers)} layers, but layers = {self.layers}")
        return self

    @model_validator(mode="after")
    def _both_stages_have_something_to_learn(self) -> TinyBert:
        if self.layers_first and not (self.objective.reads_layers and self.objective.logits_weight + self.objective.labels_weight):
            raise ValueError("layers_first trains in two stages: layers (hidden, attention or embedding_weight), then answers (logits or labels_weight)")
        return self


class BiLstm(StudentBase):
    """One bidirectional LSTM layer (Tang et al. 2019)."""

    kind: Literal["bilstm"]
    start: Literal["teacher", "scratch"] = Field("teacher", description="where the word embeddings come from")
    embedding: Positive | None = Field(None, description="width of the word embeddings; default: the teacher's")
    hidden: Positive = 150
    head: Positive = 200
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    fit: BiLstmFit = BiLstmFit()
    quantize: BiLstmQuantize = BiLstmQuantize()

    @model_validator(mode="after")
    def _has_no_layers(self) -> BiLstm:
        if self.objective.reads_layers:
            raise ValueError("a BiLSTM has no layers to match: hidden, attention and embedding weights must be 0")
        return self


Student = Annotated[Union[TinyBert, BiLstm], Field(discriminator="kind")]


class Range(Section):
    """Numbers between two, which are among them; whole numbers where both are."""

    low: int | float
    high: int | float
    log: bool = Field(False, description="even in the logarithm: for learning rates and the like")

    @model_validator(mode="after")
    def _is_a_range(self) -> Range:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"a range runs from low to a larger high, and above 0 where log = true, not from {self.low} to {self.high}")
        return self


class Tune(Section):
    """What `kdedge tune` tries: keys of a student, each with a range or a list of choices."""

    trials: Positive = 20
    prune: bool = Field(True, description="give up a trial that is below the median of the others at the same check")
    ranges: dict[str, Range | list[bool | int | float | str]] = Field(min_length=1, description='such as "student.fit.learning_rate"')

    @field_validator("ranges")
    @classmethod
    def _keys_are_a_students(cls, value: dict[str, Any]) -> dict[str, Any]:
        for key, choices in value.items():
            if not key.startswith("student."):
                raise ValueError(f"{key}: only keys of a student can be tuned; teacher and transfer set are made once and shared by all trials")
            if isinstance(choices, list) and len(choices) < 2:
                raise ValueError(f"{key}: a choice is between two values or more")
        return value


class Recipe(Section):
    """One teacher, one transfer set, one or more students."""

    name: Name
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    student_seed: Annotated[int, Field(ge=0, lt=2**31)] | None = Field(None, description="of the students alone; default: seed, as for data and teacher")
    threads: Positive | None = Field(
        None, description="CPU threads of training, which decide how sums are rounded; default: this machine's cores, then kept by the run"
    )
    share: Name | None = Field(None, description="run folder that holds teacher/ and transfer/; default: this run's")
    task: TaskSection = TaskSection()
    data: Data
    teacher: Teacher
    transfer: Transfer = Transfer()
    augment: Augment | None = None
    student: list[Student] = Field(min_length=1)
    tune: Tune | None = None

    @field_validator("student", mode="before")
    @classmethod
    def _one_student_is_a_list_of_one(cls, value: Any) -> Any:
        return [value] if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _students_have_names_of_their_own(self) -> Recipe:
        names = [self.student_name(s) for s in self.student]
        taken = sorted(set(names) & STAGES)
        if taken:
            raise ValueError(f"a student cannot be called {taken[0]}: a folder of the run has that name")
        if len(set(names)) < len(names):
            raise ValueError(f"students are told apart by name, but these are {', '.join(names)}")
        return self

    @model_validator(mode="after")
    def _losses_fit_the_task(self) -> Recipe:
        for student in self.student:
            if self.task.kind == "regression" and student.objective.logits != "mse" and student.objective.logits_weight:
                raise ValueError(f'{self.student_name(student)}: a regression has no distribution to compare: set objective.logits = "mse"')
        return self

    @property
    def training_seed(self) -> int:
        """The seed of the students' weights and order of texts."""
        return self.seed if self.student_seed is None else self.student_seed

    @staticmethod
    def student_name(student: TinyBert | BiLstm) -> str:
        return student.name or student.kind

    def to_toml(self) -> str:
        """The whole recipe, defaults written out: reading it again gives an equal value."""
        return tomli_w.dumps(_without_none(self.model_dump(mode="json")))


def load_recipe(path: str | Path, overrides: tuple[str, ...] = ()) -> Recipe:
    """Read a recipe from TOML and apply `a.b=value` overrides.

    Raises UsageError that tells every fault at once, with the nearest known key.
    """
    path = Path(path)
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError("the recipe cannot be read", f"{path}: {error.strerror}", "name a TOML file, such as one in configs/") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError("the recipe is not TOML", f"{path}: {error}", "see configs/quickstart.toml for the form") from error
    for override in overrides:
        _apply_override(document, override)
    return _validated(str(path), document)


def with_values(recipe: Recipe, values: dict[str, Any]) -> Recipe:
    """The recipe with some keys, written as in overrides, set to other values. Raises UsageError as `load_recipe` does."""
    document = recipe.model_dump(mode="json")
    for key, value in values.items():
        _set_key(document, key.split("."), value, key)
    return _validated(recipe.name, document)


def _validated(where: str, document: dict[str, Any]) -> Recipe:
    try:
        return Recipe.model_validate(document)
    except ValidationError as error:
        faults = [_fault_line(Path(where), document, fault) for fault in error.errors()]
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise UsageError(f"{where}: {count} in the recipe", "\n         ".join(faults), "mend these and run again") from error


def _apply_override(document: dict[str, Any], override: str) -> None:
    """Set one key; an empty value removes it. Among several students the second word names one."""
    key, equals, text = override.partition("=")
    keys = key.strip().split(".")
    if not equals or not all(keys):
        raise UsageError("an override has the form a.b=value", repr(override), "for example --set student.layers=6")
    _set_key(document, keys, None if text.strip() == "" else _toml_value(text), override)


def _set_key(document: dict[str, Any], keys: list[str], value: Any, override: str) -> None:
    table: Any = document
    for depth, word in enumerate(keys):
        if isinstance(table, list):
            table, used = _student_named(table, word, override)
            if used:
                continue
        if depth == len(keys) - 1:
            break
        table = table.setdefault(word, {})
        if not isinstance(table, dict | list):
            raise UsageError(f"{'.'.join(keys[: depth + 1])} is a value, not a table", repr(override), "name a key of a table")
    if value is None:
        table.pop(keys[-1], None)
    else:
        table[keys[-1]] = value


def _student_named(students: list[dict[str, Any]], word: str, override: str) -> tuple[dict[str, Any], bool]:
    named = {str(s.get("name", s.get("kind"))): s for s in students if isinstance(s, dict)}
    if word in named:
        return named[word], True
    if len(students) == 1 and isinstance(students[0], dict):
        return students[0], False
    raise UsageError("this recipe has several students", repr(override), f"name one: student.{' or student.'.join(named)}")


def _toml_value(text: str) -> Any:
    """`6`, `0.1`, `true`, `[1, 2]` as TOML reads them; anything else is the string as it stands."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()


def _fault_line(path: Path, document: dict[str, Any], fault: Any) -> str:
    where = [str(part) for part in fault["loc"] if part not in ("tinybert", "bilstm")]
    key = ".".join(where) or "(recipe)"
    if fault["type"] == "extra_forbidden":
        known = _known_keys(document, list(fault["loc"]))
        near = difflib.get_close_matches(where[-1], known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(sorted(known))}"
        return f"{key}: no such key; {hint}"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "missing":
        return f"{key}: missing"
    given = fault.get("input")
    shown = "" if isinstance(given, dict | list) or given is None else f", not {given!r}"
    return f"{key}: {message}{shown if not fault['type'].startswith('value_error') else ''}"


def _known_keys(document: dict[str, Any], loc: list[Any]) -> list[str]:
    """The keys that the table holding the unknown one does take."""
    model: Any = Recipe
    for part in loc[:-1]:
        if part in ("tinybert", "bilstm"):
            model = TinyBert if part == "tinybert" else BiLstm
        elif isinstance(part, str) and part != "student":
            model = model.model_fields[part].annotation
    return list(model.model_fields)


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_without_none(v) for v in value]
    return value
