"""The recipe as a whole, and how it is read: unknown keys rejected, all faults at once."""

from __future__ import annotations

import difflib
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, get_args

import tomli_w
from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_serializer,
    field_validator,
    model_validator,
)

from kdedge.errors import UsageError
from kdedge.recipe.augment import AugmentConfig
from kdedge.recipe.section import Name, Positive, Section
from kdedge.recipe.students import BiLstmConfig, Student, TinyBertConfig
from kdedge.recipe.task import DataConfig, TaskConfig, TeacherConfig, TransferConfig
from kdedge.recipe.tune import TuneConfig

STAGES = frozenset(
    (
        "teacher",
        "teacher-bundle",
        "generator",
        "augment",
        "transfer",
        "student",
        "student-int8",
        "layers",
        "assistant",
        "tune",
        "baseline",
        "bundle",
        "bench",
    )
)
"""Folders of a run, which no student can be named after."""


class Recipe(Section):
    """One or more teachers that answer as one, one transfer set, one or more students."""

    name: Name
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    student_seed: Annotated[int, Field(ge=0, lt=2**31)] | None = Field(
        None, description="of the students alone; default: seed, as for data and teacher"
    )
    threads: Positive | None = Field(
        None,
        description="CPU threads of training, which decide how sums are rounded; default: this machine's cores, then kept by the run",
    )
    share: Name | None = Field(
        None, description="run folder that holds teacher/ and transfer/; default: this run's"
    )
    task: TaskConfig = TaskConfig()
    data: DataConfig
    teacher: list[TeacherConfig] = Field(
        min_length=1,
        description="the first of several lends layers, word embeddings and vocabulary",
    )
    transfer: TransferConfig = TransferConfig()
    augment: AugmentConfig | None = None
    student: list[Student] = Field(min_length=1)
    tune: TuneConfig | None = None

    @field_validator("teacher", "student", mode="before")
    @classmethod
    def _one_is_a_list_of_one(cls, value: Any) -> Any:
        return [value] if isinstance(value, dict | Section) else value

    @model_validator(mode="before")
    @classmethod
    def _numbers_are_matched_as_numbers(cls, document: Any) -> Any:
        """Where a regression's recipe names no loss on logits, it is the squared difference."""
        task = document.get("task") if isinstance(document, dict) else None
        if (
            task.get("kind") if isinstance(task, dict) else getattr(task, "kind", None)
        ) != "regression":
            return document
        students = document.get("student")
        settled = [
            _matching_numbers(one)
            for one in (students if isinstance(students, list) else [students])
        ]
        return document | {"student": settled if isinstance(students, list) else settled[0]}

    @field_serializer("teacher", mode="wrap")
    def _one_teacher_is_a_table(
        self, value: list[TeacherConfig], write: SerializerFunctionWrapHandler
    ) -> Any:
        written = write(value)
        return written[0] if len(value) == 1 else written

    @model_validator(mode="after")
    def _students_have_names_of_their_own(self) -> Recipe:
        names = [self.student_name(s) for s in self.student]
        taken = sorted(set(names) & STAGES)
        if taken:
            raise ValueError(
                f"a student cannot be called {taken[0]}: a folder of the run has that name"
            )
        if len(set(names)) < len(names):
            raise ValueError(f"students are told apart by name, but these are {', '.join(names)}")
        return self

    @model_validator(mode="after")
    def _teachers_have_names_of_their_own(self) -> Recipe:
        names = self.teacher_names
        if len(set(names)) < len(names):
            raise ValueError(f"teachers are told apart by name, but these are {', '.join(names)}")
        taken = sorted(
            {f"teacher-{name}" for name in names} & {self.student_name(s) for s in self.student}
            | {"bundle"} & set(names)
        )
        if taken:
            raise ValueError(
                f"a student or teacher cannot be called {taken[0]}: a folder of the run has that name"
            )
        return self

    @model_validator(mode="after")
    def _losses_fit_the_task(self) -> Recipe:
        for student in self.student:
            if (
                self.task.kind == "regression"
                and student.objective.logits != "mse"
                and student.objective.logits_weight
            ):
                raise ValueError(
                    f'{self.student_name(student)}: a regression has no distribution to compare: set objective.logits = "mse"'
                )
        return self

    @property
    def training_seed(self) -> int:
        """The seed of the students' weights and order of texts."""
        return self.seed if self.student_seed is None else self.student_seed

    @property
    def teacher_names(self) -> list[str]:
        """What each teacher is called among several."""
        return [one.name or str(place) for place, one in enumerate(self.teacher, 1)]

    @staticmethod
    def student_name(student: TinyBertConfig | BiLstmConfig) -> str:
        return student.name or student.kind

    def to_toml(self) -> str:
        """The whole recipe, defaults written out: reading it again gives an equal value."""
        return tomli_w.dumps(_without_none(self.model_dump(mode="json")))


def _matching_numbers(student: Any) -> Any:
    """A student, or its table, with `objective.logits = "mse"` unless it says otherwise; anything else as it is."""
    if (
        isinstance(student, TinyBertConfig | BiLstmConfig)
        and "logits" not in student.objective.model_fields_set
    ):
        return student.model_copy(
            update={"objective": student.objective.model_copy(update={"logits": "mse"})}
        )
    objective = student.get("objective", {}) if isinstance(student, dict) else None
    return (
        student | {"objective": {"logits": "mse"} | objective}
        if isinstance(objective, dict)
        else student
    )


def load_recipe(path: str | Path, overrides: tuple[str, ...] = ()) -> Recipe:
    """Read a recipe from TOML and apply `a.b=value` overrides.

    Raises UsageError that tells every fault at once, with the nearest known key.
    """
    path = Path(path)
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            "the recipe cannot be read",
            f"{path}: {error.strerror}",
            "name a TOML file, such as one in configs/",
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(
            "the recipe is not TOML", f"{path}: {error}", "see configs/quickstart.toml for the form"
        ) from error
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
        faults = _joined([_fault_line(Path(where), document, fault) for fault in error.errors()])
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise UsageError(
            f"{where}: {count} in the recipe",
            "\n         ".join(faults),
            "mend these and run again",
        ) from error


def _apply_override(document: dict[str, Any], override: str) -> None:
    """Set one key; an empty value removes it. Among several students or teachers the second word names one."""
    key, equals, text = override.partition("=")
    keys = key.strip().split(".")
    if not equals or not all(keys):
        raise UsageError(
            "an override has the form a.b=value",
            repr(override),
            "for example --set student.layers=6",
        )
    _set_key(document, keys, None if text.strip() == "" else _toml_value(text), override)


def _set_key(document: dict[str, Any], keys: list[str], value: Any, override: str) -> None:
    table: Any = document
    for depth, word in enumerate(keys):
        if isinstance(table, list):
            table, used = _one_named(keys[0], table, word, override)
            if used:
                continue
        if depth == len(keys) - 1:
            break
        table = table.setdefault(word, {})
        if not isinstance(table, dict | list):
            raise UsageError(
                f"{'.'.join(keys[: depth + 1])} is a value, not a table",
                repr(override),
                "name a key of a table",
            )
    if value is None:
        table.pop(keys[-1], None)
    else:
        table[keys[-1]] = value


def _one_named(
    what: str, several: list[dict[str, Any]], word: str, override: str
) -> tuple[dict[str, Any], bool]:
    """The student or teacher that `word` names, and whether it names one: of a single one it may be a key already."""
    named = {
        str(one.get("name") or one.get("kind") or place): one
        for place, one in enumerate(several, 1)
        if isinstance(one, dict)
    }
    if word in named:
        return named[word], True
    if len(several) == 1 and isinstance(several[0], dict):
        return several[0], False
    raise UsageError(
        f"this recipe has several {what}s",
        repr(override),
        f"name one: {what}.{f' or {what}.'.join(named)}",
    )


def _toml_value(text: str) -> Any:
    """`6`, `0.1`, `true`, `[1, 2]` as TOML reads them; anything else is the string as it stands."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()


ALTERNATIVES = ("tinybert", "bilstm", "float", "int", "str")
"""What pydantic names a value's kinds by, where a key may hold several; so it does by words like constrained-float, which are no key's either."""


def _joined(lines: list[str]) -> list[str]:
    """One line for each key, whatever several kinds of value would each have said."""
    said: dict[str, list[str]] = {}
    for key, _, message in (line.partition(": ") for line in lines):
        said.setdefault(key, []).append(message)
    return [f"{key}: {'; or '.join(messages)}" for key, messages in said.items()]


def _fault_line(path: Path, document: dict[str, Any], fault: Any) -> str:
    *outer, last = [*map(str, fault["loc"])] or [""]
    where = [part for part in outer if part not in ALTERNATIVES and re.fullmatch(r"\w+", part)]
    if fault["type"] == "extra_forbidden" or (
        last not in ALTERNATIVES and re.fullmatch(r"\w+", last)
    ):
        where.append(last)
    if where[:2] == ["teacher", "0"] and isinstance(document.get("teacher"), dict):
        del where[1]
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
            model = TinyBertConfig if part == "tinybert" else BiLstmConfig
        elif isinstance(part, str) and part != "student":
            model = _table(model.model_fields[part].annotation)
    return list(model.model_fields)


def _table(annotation: Any) -> Any:
    """The section that a key holds, where it may also hold none."""
    return next(
        (one for one in get_args(annotation) if isinstance(one, type) and issubclass(one, Section)),
        annotation,
    )


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_without_none(v) for v in value]
    return value
