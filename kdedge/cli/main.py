"""The table of commands; each is imported when it is called, so that `kdedge --help` is fast."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from typing import Any

import click

from kdedge import __version__
from kdedge.errors import KdedgeError, MachineError

COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("kdedge.cli.run:run", "Recipe to report: distill, export and bench in one go."),
    "distill": (
        "kdedge.cli.distill:distill",
        "Recipe to students: teach small models what a big one knows.",
    ),
    "augment": (
        "kdedge.cli.augment:augment",
        "Recipe to texts: make more of them, and see whether they help.",
    ),
    "tune": (
        "kdedge.cli.tune:tune",
        "Recipe with ranges to the best recipe: many students, one teacher.",
    ),
    "export": ("kdedge.cli.export:export", "Students to bundles: ONNX files, checked and packed."),
    "bench": (
        "kdedge.cli.bench:bench",
        "Bundles to a report: accuracy kept, latency, memory, bytes.",
    ),
    "predict": ("kdedge.cli.predict:predict", "Answer texts with a bundle; needs no torch."),
    "verify": (
        "kdedge.cli.predict:verify",
        "Check a bundle's files and replay its golden answers here.",
    ),
}
"""Command name -> (module:function, one line of help)."""

LAB_PACKAGES = (
    "torch",
    "transformers",
    "datasets",
    "accelerate",
    "onnx",
    "onnxscript",
    "optimum",
    "pydantic",
    "scipy",
    "sklearn",
    "tomli_w",
    "filelock",
    "pyarrow",
    "altair",
    "vl_convert",
)
"""Packages whose absence means that the extra `train` is not installed."""


def load_command(name: str) -> click.Command:
    """Import one command. Raises MachineError with the pip line when the lab floor is not installed."""
    module, _, attribute = COMMANDS[name][0].partition(":")
    try:
        command = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in LAB_PACKAGES:
            raise
        raise MachineError(
            f"`kdedge {name}` needs the training packages",
            f"{package} is not installed",
            'pip install "kdedge-toolkit[train]"',
        ) from error
    assert isinstance(command, click.Command)
    return command


class _Table(click.Group):
    """A group that knows its commands by name and imports only the one asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return load_command(cmd_name) if cmd_name in COMMANDS else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=_Table, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="kdedge")
def cli() -> None:
    """Make a big text classifier small enough for the edge, and prove what was kept.

    \b
    Example: kdedge run configs/quickstart.toml
    """


class _Terminated(BaseException):
    """SIGTERM arrived where nothing else waits for it."""


def _terminated(number: int, frame: object) -> None:
    raise _Terminated


def main(command: click.Command = cli) -> Any:
    """Run the command line, or a study's own; errors leave as letters on stderr with their exit codes."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Training catches it by itself and saves first. The first process of a container would ignore it altogether.
    signal.signal(signal.SIGTERM, _terminated)
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
        click.echo("terminated; run the same command to go on from what is done", err=True)
        sys.exit(128 + signal.SIGTERM)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
