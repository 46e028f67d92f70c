"""`kdedge verify`: check a bundle on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kdedge.cli.console import print_json, print_line, print_message
from kdedge.cli.options import ProviderOptions, digest_option, json_option, provider_options
from kdedge.errors import CheckFailed

if TYPE_CHECKING:
    from kdedge.runtime.bundle import Bundle
    from kdedge.runtime.golden import Replay


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@provider_options
@digest_option
@click.option(
    "--key",
    type=click.Path(path_type=Path),
    help="Public ed25519 key (PEM) of the person who signed the bundle; needs cryptography.",
)
@click.option(
    "--untrusted",
    is_flag=True,
    help="Open and replay the bundle in a child process with limits on time and memory first.",
)
@json_option
def verify(
    bundle: Path,
    execution: ProviderOptions,
    digest: str | None,
    key: Path | None,
    untrusted: bool,
    as_json: bool,
) -> None:
    """Check every file of BUNDLE against its hash and replay its golden texts on this machine.

    Hashes find damage. A forger can write new ones: pin the digest with --digest, or ask for a
    signature and check it with --key. A bundle from a stranger may also need endless time or
    memory: try it with --untrusted.

    The exit code is 5 if a file, the digest or the signature is not the one that was exported, and
    1 if a logit differs.

    \b
    Example: kdedge verify runs/quickstart/tinybert/bundle
    Example: kdedge verify bundle --key author.pem
    """
    from kdedge.runtime.bundle import Bundle
    from kdedge.runtime.golden import replay

    opened = Bundle.open(bundle, digest)
    if key:
        _verify_signature(opened, key)
    if untrusted:
        _try_first(opened)
    opened.verify_files()
    replays = replay(opened, execution.provider, fallback=execution.fallback)
    if as_json:
        print_json(_document(opened, replays, signed=key is not None))
    else:
        print_line(f"digest: {opened.manifest.digest()}")
        if key:
            print_line(f"the signature is of the key {key}")
        print_line(f"all {len(opened.contents)} files have the expected SHA-256")
        replayed = {file.precision for file in replays}
        for precision in sorted(set(opened.manifest.precisions) - replayed):
            print_line(f"{precision}: not replayed, because {execution.provider} cannot run it")
        for file in replays:
            print_line(f"{file.precision}: {file.texts} golden texts, {_differences(file)}")
    for file in replays:
        _check(file)


def _try_first(bundle: Bundle) -> None:
    from kdedge.runtime.untrusted import MEMORY, SECONDS, try_bundle

    print_message(
        f"trying the bundle in a child process: at most {SECONDS} s of processor time, and "
        f"{MEMORY >> 20} MiB more than its libraries and files need"
    )
    try_bundle(bundle)
    print_message("the child process opened and replayed the bundle within its limits")


def _verify_signature(bundle: Bundle, key: Path) -> None:
    from kdedge.runtime.signature import read_public_key, verify_signature

    verify_signature(bundle, read_public_key(key))


def _document(bundle: Bundle, replays: list[Replay], *, signed: bool) -> dict[str, Any]:
    rows = [{**vars(file), "passed": file.passed} for file in replays]
    return {
        "bundle": str(bundle.folder),
        "digest": bundle.manifest.digest(),
        "signed": signed,
        "files": len(bundle.contents),
        "replays": rows,
    }


def _differences(file: Replay) -> str:
    return (
        f"largest logit difference {file.max_abs_logit:.2g} (limit {file.tolerance:g}), "
        f"lower quartile {file.quartile_abs_logit:.2g} (limit {file.quartile_tolerance:g}), "
        f"{file.texts - file.label_mismatches} of {file.texts} labels equal"
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
            "use another onnxruntime, or export the student again with --precision fp32",
        )
