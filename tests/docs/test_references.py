"""What the documentation names exists: recipe keys, commands, options, files, links, messages."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest
from cli_reference import cli_reference
from doc_pages import (
    DOCS,
    ROOT,
    blocks_of,
    command_lines,
    inline_code,
    kdedge_arguments,
    name_of,
    pages,
    prose_of,
)
from links import GENERATED, page_of, relative_links, target_of
from recipe_reference import recipe_reference

from kdedge.cli.main import COMMANDS, cli
from kdedge.errors import UsageError
from kdedge.recipe import Recipe, with_values
from kdedge.recipe.reference import recipe_keys, recipe_tables

PAGES = pytest.mark.parametrize("page", pages(), ids=name_of)

STUDENTS = {
    "tinybert": {"kind": "tinybert", "objective": {"labels_weight": 1.0, "hidden_weight": 1.0}},
    "bilstm": {"kind": "bilstm", "objective": {"labels_weight": 1.0}},
}
BASE = {"name": "base", "data": {"train": "reviews.csv"}, "teacher": {"model": "a-model"}}
"""What a part of a recipe in the documentation leaves out."""

KEY = re.compile(r"(?:task|data|teacher|transfer|augment|student|tune)(?:\.[a-z_]+)+")
FILE = re.compile(r"(?:configs|benchmarks|docs|kdedge|export|tests)/[\w./-]+\.\w+")

CONTRIBUTING = ROOT / "CONTRIBUTING.md"
NAME = re.compile(r"(?=\w*[A-Z_])[A-Za-z_]\w*(\.\w+)?")
"""A name of code, with a capital letter or an underscore: `Table`, `read_table`, `Table.column`."""
ENVIRONMENT = {"CI", "KDEDGE_SHARED"}

# Recipes


def _recipe_documents(part: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Complete a part of a recipe, with each kind of student that it may mean."""
    for student in STUDENTS.values():
        document = BASE | part
        given = part.get("student", {})
        if isinstance(given, dict):
            document["student"] = _merged(student, given)
        if isinstance(part.get("teacher"), dict):
            document["teacher"] = BASE["teacher"] | part["teacher"]
        yield document


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = base | changes
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            merged[key] = _merged(base[key], value)
    return merged


@PAGES
def test_toml_blocks_are_recipes(page: Path) -> None:
    for block in blocks_of(page):
        if block.language != "toml":
            continue
        part = tomllib.loads(block.text)
        errors = []
        for document in _recipe_documents(part):
            try:
                Recipe.model_validate(document)
            except ValueError as error:
                errors.append(str(error))
        assert len(errors) < len(STUDENTS), f"{block.place}: {errors[0]}"


def test_toml_check_rejects_an_unknown_key() -> None:
    part = tomllib.loads("[student]\nlearning_rate = 1\n")
    for document in _recipe_documents(part):
        with pytest.raises(ValueError, match="learning_rate"):
            Recipe.model_validate(document)


def known_keys() -> set[str]:
    """Return the full name of every table and key, such as `student.fit.epochs`."""
    return {key.name for key in (*recipe_keys(), *recipe_tables())}


@pytest.mark.parametrize(
    ("page", "write"), [*zip(GENERATED, (recipe_reference, cli_reference), strict=True)]
)
def test_generated_pages_are_those_of_the_code(page: str, write: Callable[[], str]) -> None:
    assert (DOCS / page).read_text(encoding="utf-8") == write(), "run `make reference`"


def test_recipe_reference_has_every_key() -> None:
    keys = known_keys()
    reference = recipe_reference()
    document = Recipe.model_validate(BASE | {"student": list(STUDENTS.values())})
    for key in _keys_of(document.model_dump(mode="json")):
        assert key in keys
    for key in keys:
        anchor = key.replace(".", "-")
        assert f'<a id="{anchor}"></a>' in reference or f"## `[{key}]`" in reference


def _keys_of(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _keys_of(item, path)
    elif isinstance(value, dict):
        for name, inner in value.items():
            key = f"{path}.{name}".lstrip(".")
            yield key
            yield from _keys_of(inner, key)


@PAGES
def test_keys_in_the_text_exist(page: Path) -> None:
    known = known_keys()
    for span in inline_code(page):
        match = re.fullmatch(rf"\[*({KEY.pattern})\]*( = .*)?", span)
        if match and not _is_file(match.group(1)):
            assert match.group(1) in known, f"{name_of(page)}: no recipe key {match.group(1)}"


def _is_file(name: str) -> bool:
    return name.endswith((".py", ".md", ".json", ".toml"))


# Commands


@PAGES
def test_command_lines_parse(page: Path) -> None:
    for block in blocks_of(page):
        if block.language not in ("sh", "text"):
            continue
        for line in command_lines(block.text):
            arguments = kdedge_arguments(line)
            if arguments:
                _parse(arguments, f"{block.place}: {line}", complete=True)


@PAGES
def test_commands_in_the_text_parse(page: Path) -> None:
    for span in inline_code(page):
        arguments = kdedge_arguments(span)
        if arguments:
            _parse(arguments, f"{name_of(page)}: {span}", complete=False)


def _parse(arguments: list[str], place: str, *, complete: bool) -> None:
    """Check that command and options exist, and all arguments if the line is complete."""
    name, *rest = arguments
    if name in ("--help", "--version", "COMMAND"):
        return
    assert name in COMMANDS, f"{place}: there is no command {name}"
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    context = click.Context(command, info_name=name)
    try:
        values, extra, _ = command.make_parser(context).parse_args(rest)
    except click.UsageError as error:
        pytest.fail(f"{place}: {error.format_message()}")
    assert not extra, f"{place}: too many arguments {extra}"
    for parameter in command.params:
        value = values.get(parameter.name)
        if complete and isinstance(parameter, click.Argument) and parameter.required:
            given = isinstance(value, str | tuple | list) and len(value) > 0
            assert given, f"{place}: {parameter.make_metavar(context)} is missing"
        if isinstance(parameter.type, click.Choice) and isinstance(value, str):
            parameter.type.convert(value, parameter, context)
    for override in values.get("overrides") or ():
        _check_override(override, place)


def _check_override(override: str, place: str) -> None:
    """Check that --set names a key of a recipe."""
    key, _, text = override.partition("=")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text or None
    errors = []
    recipes = _recipes_with_names()
    for recipe in recipes:
        try:
            with_values(recipe, {key: value})
        except UsageError as error:
            errors.append(str(error))
    assert len(errors) < len(recipes), f"{place}: {errors[0]}"


@cache
def _recipes_with_names() -> list[Recipe]:
    """Recipes with one student of each kind, and one with several students."""
    several = {"student": list(STUDENTS.values())}
    augment = {"augment": {"rules": {}}}
    documents = [BASE | augment | several]
    for student in STUDENTS.values():
        documents.append(BASE | augment | {"student": student})
    return [Recipe.model_validate(document) for document in documents]


@pytest.mark.parametrize(
    "line",
    [
        "kdedge distil reviews.toml",
        "kdedge bench runs/x --second 5",
        "kdedge distill",
        "kdedge export runs/x --scheme fixed",
    ],
)
def test_command_check_rejects_faults(line: str) -> None:
    arguments = kdedge_arguments(line)
    assert arguments
    with pytest.raises((AssertionError, click.UsageError, pytest.fail.Exception)):
        _parse(arguments, line, complete=True)


def test_override_check_rejects_an_unknown_key() -> None:
    with pytest.raises(AssertionError, match="epoch"):
        _check_override("student.fit.epoch=3", "here")


def test_command_reference_has_every_command_and_option() -> None:
    reference = cli_reference()
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        start = reference.index(f"## `kdedge {name}`\n")
        section = reference[start : reference.find("\n## ", start + 1)]
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert f"`{parameter.opts[0]}`" in section


# Files, links and messages


@pytest.mark.parametrize("page", [*pages(), CONTRIBUTING], ids=name_of)
def test_files_in_the_text_exist(page: Path) -> None:
    for name in FILE.findall(page.read_text(encoding="utf-8")):
        assert (ROOT / name).exists(), f"{name_of(page)}: there is no {name}"


def test_names_of_code_in_contributing_exist() -> None:
    defined = _defined_names()
    names = [name for name in inline_code(CONTRIBUTING) if NAME.fullmatch(name)]
    assert len(set(names)) > 20
    for name in set(names) - ENVIRONMENT:
        assert name in defined, f"CONTRIBUTING.md: nothing defines {name}"


def _defined_names() -> set[str]:
    """Return the names that the packages define; members also as `Class.member`."""
    names = set()
    for folder in ("kdedge", "export", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            module = ast.parse(path.read_text(encoding="utf-8"))
            names |= _defined_in(module)
            for node in module.body:
                if isinstance(node, ast.ClassDef):
                    members = _defined_in(node)
                    names |= members | {f"{node.name}.{member}" for member in members}
    return names


def _defined_in(parent: ast.Module | ast.ClassDef) -> set[str]:
    names = set()
    for node in parent.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


def test_the_readme_takes_five_minutes_to_read() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


@PAGES
def test_relative_links_have_a_target(page: Path) -> None:
    for link in relative_links(page.read_text(encoding="utf-8")):
        file = target_of(name_of(page), link)
        target = page_of(file)
        assert target or (ROOT / file).exists(), f"{name_of(page)}: {link} has no target"
        anchor = link.partition("#")[2]
        if anchor and file.endswith(".md"):
            assert anchor in _anchors(file), f"{name_of(page)}: {link} has no such heading"


@cache
def _anchors(file: str) -> set[str]:
    """Return the anchors of a page in the repository."""
    markdown = (ROOT / file).read_text(encoding="utf-8")
    anchors = set(re.findall(r'<a id="(\S+)"></a>', markdown))
    for title in re.findall(r"^#+ (.+)$", markdown, re.MULTILINE):
        words = re.sub(r"[^\w\s-]", "", title).strip().lower()
        anchors.add(re.sub(r"[-\s]+", "-", words))
    return anchors


def test_troubleshooting_quotes_real_messages() -> None:
    messages = list(_strings_in_code())
    titles = re.findall(r"^### `(.+)`$", prose_of(DOCS / "troubleshooting.md"), re.MULTILINE)
    assert len(titles) > 20
    for title in titles:
        parts = [re.escape(part.strip()) for part in title.split("…") if part.strip()]
        pattern = re.compile(".*".join(parts))
        assert any(pattern.search(message) for message in messages), f"nothing says {title!r}"


def _strings_in_code() -> Iterator[str]:
    """Yield all strings of the packages; … stands for what an f-string inserts."""
    for folder in ("kdedge", "export", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value
                elif isinstance(node, ast.JoinedStr):
                    yield "".join(map(_literal, node.values))


def _literal(part: ast.expr) -> str:
    return str(part.value) if isinstance(part, ast.Constant) else "…"
