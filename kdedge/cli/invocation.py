"""The command as the user gave it, for reports that others can repeat."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource


def command_line(context: click.Context) -> str:
    """Write the running command with every argument and option that was given, shell-quoted.

    Reports are published. An absolute path is therefore written relative to the working folder,
    or by its name alone if it is elsewhere.

    Example:
        >>> command_line(click.get_current_context())
        'kdedge bench runs/quickstart --threads 4'
    """
    arguments: list[str] = []
    options: list[str] = []
    for parameter in context.command.params:
        name = parameter.name or ""
        if context.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        value = context.params[name]
        if isinstance(parameter, click.Option):
            options += _option_words(parameter, value)
        else:
            arguments += [_word(entry) for entry in _values(value)]
    return shlex.join(["kdedge", context.command.name or "", *arguments, *options])


def _option_words(option: click.Option, value: Any) -> list[str]:
    """Return the words that give an option this value."""
    if option.is_flag:
        names = option.opts if value else option.secondary_opts
        return [max(names, key=len)]
    words = []
    for entry in _values(value):
        words += [max(option.opts, key=len), _word(entry)]
    return words


def _values(value: Any) -> Iterable[Any]:
    return value if isinstance(value, tuple) else (value,)


def _word(value: Any) -> str:
    if not isinstance(value, Path) or not value.is_absolute():
        return str(value)
    if value.is_relative_to(Path.cwd()):
        return str(value.relative_to(Path.cwd()))
    return value.name
