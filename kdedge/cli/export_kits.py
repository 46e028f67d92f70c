"""The options of `kdedge export` that write kits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from kdedge.cli.console import print_line
from kdedge.cli.options import option_group
from kdedge.errors import UsageError


def kit_names(kits: tuple[str, ...], c: bool) -> tuple[str, ...]:
    """Convert the options of the command line."""
    names = (*kits, "c") if c else kits
    return tuple(dict.fromkeys(names))


kit_options = option_group(
    "kits",
    kit_names,
    click.option(
        "--kit",
        "kits",
        type=click.Choice(["cpp", "node", "c"]),
        multiple=True,
        help="Also write source code that classifies with the bundle without Python; repeatable. "
        "A student that a kit does not fit is left out.",
    ),
    click.option("--c", is_flag=True, help="Short for --kit c: a BiLSTM in one C file."),
)


def write_all_kits(bundles: Sequence[Path], names: Sequence[str]) -> list[list[str]]:
    """Write kits next to bundles, and print their folders and what was left out.

    Returns:
        The folders of the kits of each bundle.

    Raises:
        UsageError: If a kit fits none of the bundles. The others are written before that.
    """
    folders: list[list[str]] = [[] for _ in bundles]
    misfits = []
    for name in names:
        refusals = _write_kit(bundles, name, folders)
        if len(refusals) == len(bundles):
            misfits.append(refusals[0])
    if misfits:
        raise misfits[0]
    return folders


def _write_kit(
    bundles: Sequence[Path], name: str, folders: Sequence[list[str]]
) -> list[UsageError]:
    """Write one kit for each bundle that it fits; return the errors for the others."""
    from kdedge.export.kits.write import write_kits
    from kdedge.runtime import Bundle

    refusals = []
    for folder, written in zip(bundles, folders, strict=True):
        bundle = Bundle.open(folder)
        try:
            (kit,) = write_kits(bundle, [name])
        except UsageError as error:
            refusals.append(error)
            reason = f"{error.message}: {error.detail}"
            print_line(f"no kit {name} for {bundle.manifest.name}: {reason}")
            continue
        written.append(str(kit))
        print_line(f"kit: {kit}")
    return refusals
