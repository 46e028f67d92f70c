"""Upload a bundle to a repository on the Hugging Face hub, with nothing else."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from kdedge.errors import MachineError, UsageError, first_line
from kdedge.runtime.bundle import Bundle
from kdedge.runtime.bundle_source import HUB_ID, NAMES
from kdedge.runtime.layout import EVALUATION, MANIFEST, MAX_MANIFEST_BYTES, SIGNATURE
from kdedge.runtime.signature import MAX_SIGNATURE_BYTES
from kdedge.runtime.verified_file import read_regular_file

if TYPE_CHECKING:
    from huggingface_hub import HfApi


@dataclass(frozen=True)
class UploadedBundle:
    """Where a bundle was uploaded to.

    Attributes:
        commit: The commit that holds it, for `Classifier.load("owner/name@commit")`.
    """

    repository: str
    url: str
    commit: str


def upload_bundle(
    bundle: Bundle,
    repository: str,
    *,
    private: bool = False,
    revision: str | None = None,
    with_eval: bool = False,
) -> UploadedBundle:
    """Verify a bundle and upload it; files of an older bundle are removed from the repository.

    Args:
        repository: `owner/name`; it is created if it does not exist.
        private: Whether a new repository is private.
        revision: Branch that receives the bundle; it is created if it does not exist.
        with_eval: Whether evaluation texts may be uploaded: they are users' texts.

    Raises:
        IntegrityError: If a file is not the one that was exported, or is a link.
        UsageError: If `repository` is not of the form `owner/name`, or the bundle holds
            evaluation texts and `with_eval` is False.
        MachineError: If huggingface_hub is missing, nobody is logged in, or the upload fails.
    """
    if not HUB_ID.fullmatch(repository):
        raise UsageError(
            "a repository on the hub is named owner/name", repr(repository), "use your user name"
        )
    if EVALUATION in bundle.manifest.files and not with_eval:
        raise UsageError(
            "this bundle holds users' texts, word for word",
            f"{EVALUATION}: the texts and labels of the test split",
            "export it without --with-eval; or add --with-eval to upload these texts too",
        )
    bundle.verify_files()
    api = _logged_in_api()
    with TemporaryDirectory(prefix="kdedge-push-") as folder:
        _write_listed_files(bundle, Path(folder))
        try:
            url = api.create_repo(repository, private=private, exist_ok=True)
            if private and not api.repo_info(repository).private:
                raise _is_public(repository)
            if revision is not None:
                api.create_branch(repository, branch=revision, exist_ok=True)
            done = api.upload_folder(
                repo_id=repository,
                folder_path=folder,
                revision=revision,
                commit_message=f"Upload {bundle.manifest.name} with kdedge",
                # A file that only the older bundle has would make the new one invalid.
                delete_patterns=sorted(NAMES),
            )
        except UsageError:
            raise
        # Networks and hubs raise many classes of errors.
        except Exception as error:
            raise _upload_failed(repository, error) from error
    return UploadedBundle(repository, str(url), str(done.oid))


def _logged_in_api() -> HfApi:
    try:
        from huggingface_hub import HfApi, get_token
    except ModuleNotFoundError as error:
        raise MachineError(
            "an upload to the hub needs huggingface_hub",
            "it is not installed",
            "pip install huggingface_hub",
        ) from error
    if get_token() is None:
        raise MachineError(
            "nobody is logged in to the Hugging Face hub",
            "there is no token in HF_TOKEN and none was saved",
            "run `hf auth login` with a token that may write, or set HF_TOKEN",
        )
    return HfApi()


def _write_listed_files(bundle: Bundle, folder: Path) -> None:
    """Write the verified bytes of the files that the manifest lists, the manifest and a signature.

    Only this folder is uploaded, so nothing else can be.
    """
    for name in bundle.manifest.files:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(bundle.contents[name])
    limits = {MANIFEST: MAX_MANIFEST_BYTES, SIGNATURE: MAX_SIGNATURE_BYTES}
    for name, most in limits.items():
        if os.path.lexists(bundle.folder / name):
            content = read_regular_file(bundle.folder, name, max_bytes=most)
            (folder / name).write_bytes(content)
    Bundle.open(folder, bundle.manifest.digest())


def _is_public(repository: str) -> UsageError:
    return UsageError(
        "this repository exists already and is public",
        f"{repository}: nothing was uploaded",
        "make it private in its settings, name another one, or leave --private out",
    )


def _upload_failed(repository: str, error: Exception) -> MachineError:
    response: Any = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if status in (401, 403):
        hint = "log in with `hf auth login` as an owner of the repository, with a token that writes"
    else:
        hint = "check the name, the network and HF_HUB_OFFLINE; run the same command again"
    return MachineError(
        "the bundle cannot be uploaded to the hub", f"{repository}: {first_line(error)}", hint
    )
