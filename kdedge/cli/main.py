"""The table of commands. A command is imported when it is called, so `kdedge --help` is fast."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from typing import Any, NamedTuple

import click

from kdedge import __version__
from kdedge.errors import KdedgeError
from kdedge.io.optional import named_extra


class Command(NamedTuple):
    """Where a command is defined (module:function), and its line in `kdedge --help`."""

    target: str
    summary: str


COMMANDS = {
    "run": Command("kdedge.cli.run:run", "Distill, export and bench a recipe in one go."),
    "distill": Command(
        "kdedge.cli.distill:distill", "Recipe to students: train small models from a big one."
    ),
    "augment": Command(
        "kdedge.cli.augment:augment", "Recipe to texts: make more texts and see if they help."
    ),
    "tune": Command(
        "kdedge.cli.tune:tune", "Recipe with ranges to the best recipe: train many students."
    ),
    "export": Command(
        "kdedge.cli.export:export", "Students to bundles: write, check and pack ONNX files."
    ),
    "bench": Command(
        "kdedge.cli.bench:bench", "Bundles to a report: retention, latency, memory, size."
    ),
    "predict": Command(
        "kdedge.cli.predict:predict", "Classify texts with a bundle; needs no torch."
    ),
    "verify": Command(
        "kdedge.cli.verify:verify", "Check a bundle's files and replay its golden texts."
    ),
}


def load_command(name: str) -> click.Command:
    """Import one command.

    Raises:
        MachineError: If the command needs an extra that is not installed; contains the pip line.
    """
    module, _, attribute = COMMANDS[name].target.partition(":")
    with named_extra(f"`kdedge {name}`"):
        command = getattr(importlib.import_module(module), attribute)
    assert isinstance(command, click.Command)
    return command


class _LazyGroup(click.Group):
    """A group that imports only the command that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return load_command(cmd_name) if cmd_name in COMMANDS else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.summary) for name, command in COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="kdedge")
def cli() -> None:
    """Make a big text classifier small enough for the edge, and measure what it retains.

    \b
    Example: kdedge run configs/quickstart.toml
    """


class _Terminated(BaseException):
    """SIGTERM arrived."""


def _raise_terminated(number: int, frame: object) -> None:
    raise _Terminated


def main(command: click.Command = cli) -> Any:
    """Run a command, print errors on stderr, and exit with the code of the error."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Training installs its own handler, which saves first. Without a handler, the first process
    # of a container would ignore the signal.
    signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        return command.main(standalone_mode=False)
    except KdedgeError as error:
        from kdedge.cli.console import print_error

        print_error(error.format())
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(130)
    except _Terminated:
        click.echo("terminated; run the same command again to continue", err=True)
        sys.exit(128 + signal.SIGTERM)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
