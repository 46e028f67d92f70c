"""`kdedge bench BUNDLE --remote user@host`: the options, and the report that comes back."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from kdedge.cli.options import Decorator, OutputOptions, option_group
from kdedge.errors import MachineError, UsageError

if TYPE_CHECKING:
    from kdedge.benchmarks.remote.request import Request
    from kdedge.run.progress import Progress


@dataclass(frozen=True)
class RemoteOptions:
    """The machine that runs the bench, its Python, and the wheels for it."""

    remote: str | None
    remote_python: str
    remote_venv: str | None
    wheels: Path | None
    ssh_config: Path | None

    def check(self) -> None:
        """Raise UsageError if an option would be ignored."""
        if self.remote is None:
            given = (self.remote_venv, self.wheels, self.ssh_config)
            if any(given) or self.remote_python != "python3":
                raise UsageError(
                    "this option is for a bench on another machine",
                    "--remote is missing",
                    "add --remote user@host",
                )
        elif self.remote_venv is not None and self.wheels is not None:
            raise UsageError(
                "nothing is installed into the virtual environment of --remote-venv",
                "--wheels would be ignored",
                "leave out one of the two",
            )

    def request(
        self, bundles: Sequence[Path], words: Sequence[str], data: Path | None, against: Path | None
    ) -> Request:
        """Return the request that is sent to the machine."""
        from kdedge.benchmarks.remote.request import Request

        return Request(
            bundles, words, data, against, self.wheels, installed=self.remote_venv is not None
        )


remote_options: Decorator = option_group(
    "remote",
    RemoteOptions,
    click.option(
        "--remote",
        metavar="USER@HOST[:PORT]",
        help="Bench bundles on another machine over ssh. kdedge, the bundles and --data are copied"
        " there, and removed afterwards.",
    ),
    click.option(
        "--remote-python",
        default="python3",
        show_default=True,
        metavar="PYTHON",
        help="Python 3.11 or newer on that machine; makes a temporary virtual environment.",
    ),
    click.option(
        "--remote-venv",
        metavar="DIR",
        help="Virtual environment on that machine that has kdedge: nothing is installed.",
    ),
    click.option(
        "--wheels",
        type=click.Path(path_type=Path, exists=True, file_okay=False),
        help="Folder with wheels for that machine, made by `pip download`, if it is offline.",
    ),
    click.option(
        "--ssh-config",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        help="Configuration file of ssh. Default: your own.",
    ),
)


def remote_folder(folder: Path, remote: str, *, compared: bool) -> Path:
    """Return the default folder of a report from another machine.

    Example:
        >>> remote_folder(Path("bench/bilstm"), "pi@board:2222", compared=False)
        PosixPath('bench/bilstm-board-2222')
    """
    parts = [folder.name, remote.rpartition("@")[2]]
    if compared:
        parts.append("against")
    return folder.with_name(re.sub(r"[^\w.-]+", "-", "-".join(parts)))


def bench_remotely(
    options: RemoteOptions,
    request: Request,
    folder: Path,
    output: OutputOptions,
    progress: Progress,
) -> NoReturn:
    """Run a bench on another machine, write and print its report, and exit with its code."""
    from kdedge.benchmarks.remote.run import bench_on_target
    from kdedge.benchmarks.remote.target import parse_target
    from kdedge.benchmarks.saved import read_document
    from kdedge.cli.bench_output import judge, show_report

    assert options.remote is not None
    target = parse_target(
        options.remote,
        python=options.remote_python,
        venv=options.remote_venv,
        ssh_config=options.ssh_config,
    )
    result = bench_on_target(target, request, progress)
    if "report.json" in result.files:
        try:
            report = read_document(json.loads(result.files["report.json"]))
        except (ValueError, KeyError, TypeError, StopIteration) as error:
            raise MachineError(
                "the report of the target cannot be read",
                f"{type(error).__name__}: {error}",
                "install the same version of kdedge on both machines",
            ) from error
        result.write(folder)
        show_report(report, folder / "report.json", output, progress=progress)
        judge(report, output)
    sys.exit(result.code)
