"""`kdedge push`: upload a bundle to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

import click

from kdedge.cli.console import print_json, print_line, print_message
from kdedge.cli.options import digest_option, json_option


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("repository", metavar="OWNER/NAME")
@click.option("--private", is_flag=True, help="Make a new repository private.")
@click.option(
    "--revision", metavar="BRANCH", help="Branch to upload to; it is created if it is missing."
)
@click.option(
    "--with-eval",
    is_flag=True,
    help="Upload evaluation texts too, if the bundle holds any. Without it, that is an error.",
)
@digest_option
@json_option
def push(
    bundle: Path,
    repository: str,
    private: bool,
    revision: str | None,
    with_eval: bool,
    digest: str | None,
    as_json: bool,
) -> None:
    """Verify BUNDLE and upload it to the repository OWNER/NAME on the Hugging Face hub.

    Only the manifest, the files that it lists, and a signature are uploaded. Log in first with
    `hf auth login`, or set HF_TOKEN. The last line shows how to load exactly this upload.

    \b
    Example: kdedge push runs/quickstart/tinybert/bundle me/bbc-news-tinybert --private
    """
    from kdedge.runtime.bundle import Bundle
    from kdedge.runtime.hub_upload import upload_bundle

    opened = Bundle.open(bundle, digest)
    size = opened.manifest.size() / 1e6
    print_message(f"uploading {len(opened.manifest.files)} files and their manifest, {size:.1f} MB")
    done = upload_bundle(
        opened, repository, private=private, revision=revision, with_eval=with_eval
    )
    pinned = f"{done.repository}@{done.commit}"
    if as_json:
        document = {"url": done.url, "commit": done.commit, "digest": opened.manifest.digest()}
        print_json(document)
        return
    print_line(f"uploaded: {done.url}")
    print_line(f"digest: {opened.manifest.digest()}")
    print_line(f'load it: kdedge.Classifier.load("{pinned}")')
