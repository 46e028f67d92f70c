"""The faults of a recipe as sentences: key, line, and the nearest known key."""

from __future__ import annotations

import tomllib
from typing import Any, get_args

from pydantic import ValidationError

from kdedge.errors import UsageError
from kdedge.recipe.lines import document_path, key_lines, value_at
from kdedge.recipe.overrides import name_of
from kdedge.recipe.recipe import Recipe
from kdedge.recipe.section import Section
from kdedge.recipe.students import STUDENT_KINDS
from kdedge.wording import counted, nearest_or_known


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
        error: The error that pydantic raised.
        document: The invalid document.
        section: The type that the document was checked against.
        text: The content of the TOML file, to find the line of each fault.
    """
    # A key that may hold several types has one fault for each of them.
    messages: dict[str, list[str]] = {}
    for fault in error.errors():
        key, owner = _locate(document, fault["loc"], section)
        key = _line_of(fault["loc"], document, text) + key
        messages.setdefault(key, []).append(_message(fault, owner))
    count = counted(len(messages), "fault")
    whole, place = "(settings)", ""
    if section is Recipe:
        whole, place = "(recipe)", " in the recipe"
    lines = [f"{key or whole}: {'; or '.join(texts)}" for key, texts in messages.items()]
    return UsageError(f"{origin}: {count}{place}", "\n".join(lines), "correct these keys")


def _line_of(location: tuple[Any, ...], document: dict[str, Any], text: str) -> str:
    """Return `line 12: ` if the TOML file holds the faulty key with this value, else ""."""
    path = document_path(document, location)
    line = key_lines(text).get(path)
    if line is None or value_at(tomllib.loads(text), path) != value_at(document, path):
        return ""
    return f"line {line}: "


def _locate(
    document: Any, location: tuple[Any, ...], section: type[Section]
) -> tuple[str, type[Section]]:
    """Return the faulty key as users write it, and the section that it belongs to.

    Pydantic's location of a fault also names the types that a key may have; these are left out.
    """
    words: list[str] = []
    value = document
    for depth, part in enumerate(location, 1):
        if isinstance(value, dict) and part in value:
            value = value[part]
            words.append(str(part))
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
            words.append(name_of(value, part + 1) if isinstance(value, dict) else str(part))
        elif part in STUDENT_KINDS:
            section = STUDENT_KINDS[part]
        elif depth == len(location) and part in section.model_fields:
            words.append(str(part))  # a missing key
        if depth < len(location) and part in section.model_fields:
            sections = sections_of(section.model_fields[part].annotation)
            section = sections[0] if len(sections) == 1 else section
    return ".".join(words), section


def sections_of(annotation: Any) -> list[type[Section]]:
    """Return the section types that a type annotation contains."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    sections = []
    for argument in get_args(annotation):
        sections += sections_of(argument)
    return sections


def _message(fault: Any, section: type[Section]) -> str:
    """Turn an error entry of pydantic into a sentence."""
    kind, key = fault["type"], fault["loc"][-1] if fault["loc"] else ""
    if kind == "missing":
        return "missing"
    if kind == "extra_forbidden":
        return _unknown_key(str(key), section)
    if kind in ("union_tag_invalid", "union_tag_not_found", "model_type", "list_type"):
        return _wrong_type(fault, key, section)
    message = str(fault["msg"]).removeprefix("Value error, ")
    value = fault["input"]
    if kind == "value_error" or value is None or isinstance(value, dict | list):
        return message
    return f"{message}, not {value!r}"


def _wrong_type(fault: Any, key: str | int, section: type[Section]) -> str:
    """Say which kind of student, table or list is needed."""
    known = f"known kinds: {' and '.join(STUDENT_KINDS)}"
    if fault["type"] == "union_tag_invalid":
        return f"there is no student kind {fault['ctx']['tag']!r}; {known}"
    if fault["type"] == "union_tag_not_found":
        return f"kind is missing; {known}"
    if fault["type"] == "list_type":
        return f"must be a list{_meaning_of(key, section)}"
    return f"must be one table{_example_of(key, section)}"


def _example_of(key: str | int, section: type[Section]) -> str:
    """Show the keys that the table `key` needs, or those of an item of a list."""
    if isinstance(key, str) and key in section.model_fields:
        sections = sections_of(section.model_fields[key].annotation)
        if len(sections) != 1:
            return ""
        section = sections[0]
    needed = [name for name, field in section.model_fields.items() if field.is_required()]
    return f", such as {{{', '.join(f'{name} = …' for name in needed)}}}" if needed else ""


def _meaning_of(key: str | int, section: type[Section]) -> str:
    field = section.model_fields.get(str(key))
    return f": {field.description}" if field and field.description else ""


def _unknown_key(key: str, section: type[Section]) -> str:
    hint = nearest_or_known(key, sorted(section.model_fields), cutoff=0.5)
    return f"no such key; {hint}"
