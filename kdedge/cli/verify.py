"""`kdedge verify`: check a bundle on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kdedge.cli.console import print_json, print_line
from kdedge.cli.options import json_option, provider_option
from kdedge.errors import CheckFailed

if TYPE_CHECKING:
    from kdedge.runtime.golden import Replay


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@provider_option
@json_option
def verify(bundle: Path, provider: str, as_json: bool) -> None:
    """Check every file of BUNDLE against its hash and replay its golden texts on this machine.

    The exit code is 5 if a file is not the one that was exported, and 1 if a logit differs.

    \b
    Example: kdedge verify runs/quickstart/tinybert/bundle
    """
    from kdedge.runtime.bundle import Bundle
    from kdedge.runtime.golden import replay

    opened = Bundle.open(bundle)
    opened.verify_files()
    replays = replay(opened, provider)
    if as_json:
        rows = [{**vars(file), "passed": file.passed} for file in replays]
        document = {"bundle": str(bundle), "files": len(opened.contents), "replays": rows}
        print_json(document)
    else:
        print_line(f"all {len(opened.contents)} files have the expected SHA-256")
        for file in replays:
            print_line(f"{file.precision}: {file.texts} golden texts, {_differences(file)}")
    for file in replays:
        _check(file)


def _differences(file: Replay) -> str:
    from kdedge.runtime.golden import QUARTILE_TOLERANCE

    return (
        f"largest logit difference {file.max_abs_logit:.2g} (limit {file.tolerance:g}), "
        f"lower quartile {file.quartile_abs_logit:.2g} (limit {QUARTILE_TOLERANCE:g})"
    )


def _check(file: Replay) -> None:
    if file.token_mismatches:
        raise CheckFailed(
            "this machine tokenizes golden texts differently",
            f"{file.precision}: {file.token_mismatches} of {file.texts} texts",
            "install the tokenizers version that kdedge requires",
        )
    if not file.passed:
        raise CheckFailed(
            "this machine computes other logits than the one that exported the bundle",
            f"{file.precision}: {_differences(file)}",
            'load the bundle with precision="fp32", or use another onnxruntime',
        )
