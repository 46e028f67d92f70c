"""The table of commands. A command is imported when it is called, so `kdedge --help` is fast."""

from __future__ import annotations

import difflib
import importlib
import io
import os
import signal
import sys
import threading
from importlib.util import find_spec
from typing import Any, NamedTuple, NoReturn

import click

from kdedge import __version__
from kdedge.errors import Interrupted, KdedgeError
from kdedge.io.optional import missing_package, named_extra
from kdedge.run.signals import Terminated, raise_terminated

HELP_OPTIONS = ("-h", "--help")

TRAINING = ("pydantic", "torch", "transformers")
"""Packages without which no command that trains can start."""

RESUMABLE = ("run", "distill", "augment", "tune", "export")
"""The commands that continue a stopped run."""


class Command(NamedTuple):
    """Where a command is defined (module:function), its line in `kdedge --help`, its packages."""

    target: str
    summary: str
    packages: tuple[str, ...] = ()


COMMANDS = {
    "init": Command(
        "kdedge.cli.init:init",
        "Data to a recipe: write a first recipe for a file of texts.",
        ("pydantic", "tomli_w"),
    ),
    "check": Command(
        "kdedge.cli.check:check", "Check a recipe and its data without training.", TRAINING
    ),
    "keys": Command(
        "kdedge.cli.keys:keys", "List the keys of a recipe with their defaults.", ("pydantic",)
    ),
    "run": Command("kdedge.cli.run:run", "Distill, export and bench a recipe in one go.", TRAINING),
    "distill": Command(
        "kdedge.cli.distill:distill",
        "Recipe to students: train small models from a big one.",
        TRAINING,
    ),
    "augment": Command(
        "kdedge.cli.augment:augment",
        "Recipe to texts: make more texts and see if they help.",
        TRAINING,
    ),
    "tune": Command(
        "kdedge.cli.tune:tune",
        "Recipe with ranges to the best recipe: train many students.",
        (*TRAINING, "optuna", "sqlalchemy"),
    ),
    "export": Command(
        "kdedge.cli.export:export",
        "Students to bundles: write, check and pack ONNX files.",
        TRAINING,
    ),
    "bench": Command(
        "kdedge.cli.bench:bench", "Bundles to a report: retention, latency, memory, size."
    ),
    "predict": Command(
        "kdedge.cli.predict:predict", "Classify texts with a bundle; needs no torch."
    ),
    "serve": Command(
        "kdedge.cli.serve:serve",
        "Answer over HTTP with a bundle; needs no torch.",
        ("starlette", "uvicorn", "prometheus_client"),
    ),
    "info": Command("kdedge.cli.info:info", "Describe a bundle: task, labels, files, scores."),
    "verify": Command(
        "kdedge.cli.verify:verify", "Check a bundle's files and replay its golden texts."
    ),
    "push": Command("kdedge.cli.push:push", "Upload a bundle to the Hugging Face hub."),
    "doctor": Command(
        "kdedge.cli.doctor:doctor", "List versions, CPU features and what is missing."
    ),
}


def load_command(name: str) -> click.Command:
    """Import the module of one command, which imports nothing heavy."""
    module, _, attribute = COMMANDS[name].target.partition(":")
    command = getattr(importlib.import_module(module), attribute)
    assert isinstance(command, click.Command)
    return command


def _require_packages(name: str) -> None:
    """Raise MachineError with the pip line if a command's packages are not installed."""
    for package in COMMANDS[name].packages:
        if find_spec(package) is None:
            raise missing_package(package, f"`kdedge {name}`")


class _LazyGroup(click.Group):
    """A group that imports only the command that is called."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            ctx.fail(_unknown_command(name))
        if name in COMMANDS and not set(args) & set(HELP_OPTIONS):
            _require_packages(name)
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return load_command(cmd_name) if cmd_name in COMMANDS else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.summary) for name, command in COMMANDS.items()])


def _unknown_command(name: str) -> str:
    near = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.5)
    message = f"No such command {name!r}."
    return f"{message} Did you mean {near[0]!r}?" if near else message


EPILOG = """\b
Complete commands and options with the tab key, in bash or zsh:
  eval "$(_KDEDGE_COMPLETE=bash_source kdedge)"    # in ~/.bashrc
  eval "$(_KDEDGE_COMPLETE=zsh_source kdedge)"     # in ~/.zshrc
  _KDEDGE_COMPLETE=fish_source kdedge | source     # in fish
"""


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": list(HELP_OPTIONS)},
    epilog=EPILOG,
)
@click.version_option(__version__, prog_name="kdedge")
def cli() -> None:
    """Make a big text classifier small enough for the edge, and measure what it retains.

    \b
    Example: kdedge run configs/quickstart.toml
    """


def _run(command: click.Command) -> Any:
    with named_extra("this command"):
        return command.main(standalone_mode=False)


def _show(error: click.ClickException) -> None:
    """Print an error of click on stderr; it may quote a file name with control characters."""
    from kdedge.cli.console import print_message

    stream = io.StringIO()
    error.show(stream)
    print_message(stream.getvalue().rstrip("\n"))


def _print_any_character() -> None:
    """Write characters that stdout does not have as escapes, instead of an error."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def main(command: click.Command = cli) -> Any:
    """Run a command, print errors on stderr, and exit with the code of the error."""
    _print_any_character()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Training installs its own handler, which saves first. Without a handler, the first process
    # of a container would ignore the signal.
    signal.signal(signal.SIGTERM, raise_terminated)
    threading.excepthook = _report_thread
    try:
        return _run(command)
    except KdedgeError as error:
        _exit_with(error)
    except click.ClickException as error:
        _show(error)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _exit_stopped("interrupted", signal.SIGINT)
    except Terminated:
        _exit_stopped("terminated", signal.SIGTERM)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        from kdedge.cli.crash import explain

        _exit_with(explain(error))


def _report_thread(error: threading.ExceptHookArgs) -> None:
    """Print the traceback of a thread, but not for a full disk.

    TensorBoard's writer has a thread. The main thread meets the full disk too, and explains it.
    """
    from kdedge.io.disk import causes, is_disk_full

    value = error.exc_value
    if value is None or not any(map(is_disk_full, causes(value))):
        threading.__excepthook__(error)


def _exit_stopped(message: str, number: int) -> NoReturn:
    """Say that a signal stopped the command between two stages, and how to continue."""
    hint = "run the same command to continue; finished stages are kept"
    is_resumable = len(sys.argv) > 1 and sys.argv[1] in RESUMABLE
    _exit_with(Interrupted(number, message, hint if is_resumable else ""))


def _exit_with(error: KdedgeError) -> NoReturn:
    """Print an error and exit with its code."""
    from kdedge.cli.console import print_error

    print_error(error.format())
    sys.exit(error.exit_code)
