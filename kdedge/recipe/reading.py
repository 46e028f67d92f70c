"""The recipe as a whole, and how it is read: unknown keys are errors, all faults at once."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, get_args

import tomli_w
from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)

from kdedge.errors import UsageError
from kdedge.recipe.augment import AugmentConfig
from kdedge.recipe.lines import document_path, key_lines, value_at
from kdedge.recipe.section import Name, Positive, Section
from kdedge.recipe.students import BiLstmConfig, StudentConfig, TinyBertConfig
from kdedge.recipe.task import DataConfig, TaskConfig, TeacherConfig, TransferConfig
from kdedge.recipe.tune import TuneConfig

RUN_FOLDERS = frozenset(
    (
        "teacher",
        "teacher-bundle",
        "generator",
        "augment",
        "transfer",
        "student",
        "student-int8",
        "layers",
        "tune",
        "curve",
        "baseline",
        "bundle",
        "bench",
    )
)
"""Folders of a run, which no student can be named after."""
STUDENT_KINDS: dict[str, type[Section]] = {"tinybert": TinyBertConfig, "bilstm": BiLstmConfig}


class Recipe(Section):
    """One or more teachers, one transfer set, one or more students."""

    name: Name = Field(description="Name of the run and of its folder.")
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(
        0, description="Seed of data, teacher and students."
    )
    student_seed: Annotated[int, Field(ge=0, lt=2**31)] | None = Field(
        None, description="Seed of the students only; default: seed."
    )
    threads: Positive | None = Field(
        None,
        description="CPU threads of training, which decide how sums are rounded; default: this "
        "machine's cores, then saved in the run.",
    )
    share: Name | None = Field(
        None, description="Name of the run whose teacher and texts are used; default: this run."
    )
    task: TaskConfig = Field(TaskConfig(), description="What the classifier predicts.")
    data: DataConfig = Field(description="Where the examples are.")
    teacher: list[TeacherConfig] = Field(
        min_length=1,
        description="The teacher or teachers; layers, word embeddings and vocabulary come from "
        "the first.",
    )
    transfer: TransferConfig = Field(
        TransferConfig(), description="How the teacher labels the transfer set."
    )
    augment: AugmentConfig | None = Field(None, description="New texts for the transfer set.")
    student: list[Annotated[StudentConfig, Field(discriminator="kind")]] = Field(
        min_length=1, description="The students; all learn from the same transfer set."
    )
    tune: TuneConfig | None = Field(None, description="What `kdedge tune` tries.")

    @field_validator("teacher", "student", mode="before")
    @classmethod
    def _list_of_one(cls, value: Any) -> Any:
        return [value] if isinstance(value, dict | Section) else value

    @field_validator("student")
    @classmethod
    def _match_scores(
        cls, students: list[StudentConfig], info: ValidationInfo
    ) -> list[StudentConfig]:
        """Set the loss on logits to mse for a regression, unless the recipe sets it."""
        task = info.data.get("task")
        if task is None or task.kind != "regression":
            return students
        return [_with_squared_error(student) for student in students]

    @field_serializer("teacher", mode="wrap")
    def _one_teacher_is_a_table(
        self, value: list[TeacherConfig], write: SerializerFunctionWrapHandler
    ) -> Any:
        written = write(value)
        return written[0] if len(value) == 1 else written

    @model_validator(mode="after")
    def _check_names(self) -> Recipe:
        students = [student.key for student in self.student]
        for what, names in (("students", students), ("teachers", self.teacher_names)):
            if len(set(names)) < len(names):
                raise ValueError(f"{what} need different names, but these are {', '.join(names)}")
        teacher_folders = {f"teacher-{name}" for name in self.teacher_names}
        taken = sorted(set(students) & (RUN_FOLDERS | teacher_folders))
        if taken:
            raise ValueError(
                f"a student cannot be called {taken[0]}: a folder of the run has that name"
            )
        if "teacher-bundle" in teacher_folders:
            raise ValueError("a teacher cannot be called bundle: a folder of the run has that name")
        return self

    @model_validator(mode="after")
    def _check_losses(self) -> Recipe:
        if self.task.kind != "regression":
            return self
        for student in self.student:
            if student.objective.logits != "mse" and student.objective.logits_weight:
                raise ValueError(
                    f"{student.key}: a regression has no distribution to compare: "
                    'set objective.logits = "mse"'
                )
        return self

    @property
    def training_seed(self) -> int:
        """The seed of the students' weights and order of texts."""
        return self.seed if self.student_seed is None else self.student_seed

    @property
    def teacher_names(self) -> list[str]:
        """The name of each teacher; its position, counted from 1, if it has none."""
        return [teacher.name or str(number) for number, teacher in enumerate(self.teacher, 1)]

    def to_toml(self) -> str:
        """Return the recipe with all defaults; reading it gives an equal recipe."""
        return tomli_w.dumps(_without_none(self.model_dump(mode="json")))


def _with_squared_error(student: StudentConfig) -> StudentConfig:
    if "logits" in student.objective.model_fields_set:
        return student
    objective = student.objective.model_copy(update={"logits": "mse"})
    return student.model_copy(update={"objective": objective})


def _without_none(value: Any) -> Any:
    """Drop None, which TOML cannot hold."""
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_none(item) for item in value]
    return value


def load_recipe(path: str | Path, overrides: tuple[str, ...] | Mapping[str, Any] = ()) -> Recipe:
    """Read a recipe from TOML and apply overrides.

    Args:
        path: The TOML file.
        overrides: Texts such as `student.layers=6`, or key -> value such as
            `{"student.layers": 6}`; an empty text or None removes a key.

    Raises UsageError that lists every fault, with the nearest known key.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        document = tomllib.loads(text)
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
    if isinstance(overrides, Mapping):
        set_keys(document, overrides)
    else:
        for override in overrides:
            _apply_override(document, override)
    return validated(str(path), document, text)


def with_values(recipe: Recipe, values: dict[str, Any]) -> Recipe:
    """Return the recipe with other values for some keys, which are written as in overrides.

    Raises UsageError as `load_recipe` does.
    """
    document = recipe.model_dump(mode="json")
    set_keys(document, values)
    return validated(recipe.name, document)


def set_keys(document: dict[str, Any], values: Mapping[str, Any]) -> None:
    """Set keys such as `student.layers` in the document of a recipe; None removes a key."""
    for key, value in values.items():
        _set_key(document, key.split("."), value, key)


def _apply_override(document: dict[str, Any], override: str) -> None:
    """Set one key; an empty value removes it."""
    key, equals, text = override.partition("=")
    words = key.strip().split(".")
    if not equals or not all(words):
        raise UsageError(
            "an override has the form a.b=value",
            repr(override),
            "for example --set student.layers=6",
        )
    _set_key(document, words, _toml_value(text.strip()), override)


def _toml_value(text: str) -> Any:
    """Read `6`, `0.1`, `true`, `[1, 2]` as TOML; other text is a string, none is None."""
    if not text:
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _set_key(document: dict[str, Any], words: list[str], value: Any, override: str) -> None:
    """Set the key with these words, or remove it if the value is None.

    Among several students or teachers, the second word is a name.
    """
    table = document
    for depth, word in enumerate(words[:-1], 1):
        table = table.setdefault(word, {})
        if depth == 1 and isinstance(table, list):
            rest = words[1:]
            table, is_named = _named_table(word, table, rest[0], override)
            _set_key(table, rest[1:] if is_named and len(rest) > 1 else rest, value, override)
            return
        if not isinstance(table, dict):
            raise UsageError(
                f"{'.'.join(words[:depth])} is a value, not a table",
                repr(override),
                "name a key of a table",
            )
    if value is None:
        table.pop(words[-1], None)
    else:
        table[words[-1]] = value


def _named_table(
    key: str, tables: list[Any], word: str, override: str
) -> tuple[dict[str, Any], bool]:
    """Return the student or teacher that `word` names, and whether it is a name.

    If there is only one, the word may also be one of its keys.
    """
    named = {
        _name_of(table, number): table
        for number, table in enumerate(tables, 1)
        if isinstance(table, dict)
    }
    if word in named:
        return named[word], True
    if len(tables) == 1 and isinstance(tables[0], dict):
        return tables[0], False
    raise UsageError(
        f"this recipe has several {key}s",
        repr(override),
        "name one: " + " or ".join(_with_name(override, key, name) for name in named),
    )


def _with_name(override: str, key: str, name: str) -> str:
    """Return the override for one of several tables, such as `student.bilstm.fit.epochs=5`."""
    return override.replace(f"{key}.", f"{key}.{name}.", 1)


def _name_of(table: dict[str, Any], number: int) -> str:
    return str(table.get("name") or table.get("kind") or number)


def validated(origin: str, document: dict[str, Any], text: str = "") -> Recipe:
    """Return the recipe of a document; `text` is the file that it comes from.

    Raises UsageError as `load_recipe` does.
    """
    try:
        return Recipe.model_validate(document)
    except ValidationError as error:
        raise faults_error(origin, error, document, Recipe, text) from error


def faults_error(
    origin: str,
    error: ValidationError,
    document: dict[str, Any],
    section: type[Section],
    text: str = "",
) -> UsageError:
    """Return the error that lists the faults of a document.

    Args:
        origin: The name of the document in the message.
        error: The error of pydantic.
        document: The document of `section`.
        section: The type that the document was checked against.
        text: The TOML file of the document, to name lines.
    """
    # A key that may hold several types has one fault for each of them.
    messages: dict[str, list[str]] = {}
    for fault in error.errors():
        key, owner = _locate(document, fault["loc"], section)
        key = _line_of(fault["loc"], document, text) + key
        messages.setdefault(key, []).append(_message(fault, owner))
    count = "1 fault" if len(messages) == 1 else f"{len(messages)} faults"
    whole = "(recipe)" if section is Recipe else "(settings)"
    lines = [f"{key or whole}: {'; or '.join(texts)}" for key, texts in messages.items()]
    place = " in the recipe" if section is Recipe else ""
    return UsageError(f"{origin}: {count}{place}", "\n".join(lines), "correct these keys")


def _line_of(location: tuple[Any, ...], document: dict[str, Any], text: str) -> str:
    """Return `line 12: ` if the faulty key stands in the file with this value, else ""."""
    path = document_path(document, location)
    line = key_lines(text).get(path)
    if line is None or value_at(tomllib.loads(text), path) != value_at(document, path):
        return ""
    return f"line {line}: "


def _locate(
    document: Any, location: tuple[Any, ...], section: type[Section]
) -> tuple[str, type[Section]]:
    """Return the key of a fault as users write it, and the section that holds the key.

    A location of pydantic also holds the types that a key may have. They are not in the document.
    """
    words: list[str] = []
    value = document
    for depth, part in enumerate(location, 1):
        if isinstance(value, dict) and part in value:
            value = value[part]
            words.append(str(part))
        elif isinstance(value, list) and isinstance(part, int):
            value = value[part]
            words.append(_name_of(value, part + 1) if isinstance(value, dict) else str(part))
        elif part in STUDENT_KINDS:
            section = STUDENT_KINDS[part]
        elif depth == len(location) and part in section.model_fields:
            words.append(str(part))  # a missing key
        if depth < len(location) and part in section.model_fields:
            sections = sections_of(section.model_fields[part].annotation)
            section = sections[0] if len(sections) == 1 else section
    return ".".join(words), section


def sections_of(annotation: Any) -> list[type[Section]]:
    """Return the sections that a key of this type may hold."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    sections = []
    for argument in get_args(annotation):
        sections += sections_of(argument)
    return sections


def _message(fault: Any, section: type[Section]) -> str:
    """Turn a fault of pydantic into a sentence."""
    kind = fault["type"]
    known_kinds = " and ".join(STUDENT_KINDS)
    if kind == "missing":
        return "missing"
    if kind == "extra_forbidden":
        return _unknown_key(str(fault["loc"][-1]), section)
    if kind == "union_tag_invalid":
        return f"there is no student kind {fault['ctx']['tag']!r}; known kinds: {known_kinds}"
    if kind == "union_tag_not_found":
        return f"kind is missing; known kinds: {known_kinds}"
    message = str(fault["msg"]).removeprefix("Value error, ")
    value = fault["input"]
    if kind == "value_error" or value is None or isinstance(value, dict | list):
        return message
    return f"{message}, not {value!r}"


def _unknown_key(key: str, section: type[Section]) -> str:
    near = difflib.get_close_matches(key, section.model_fields, n=1, cutoff=0.5)
    if near:
        return f"no such key; did you mean {near[0]}?"
    return f"no such key; known keys: {', '.join(sorted(section.model_fields))}"
