"""`kdedge push` against a hub on this machine: what is uploaded, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import factories
import pytest
from fake_hub import TOKEN, FakeHub, running_hub
from kdedge_process import ROOT, kdedge_command

from kdedge.errors import IntegrityError
from kdedge.runtime import Bundle, Classifier, hub_upload

pytestmark = pytest.mark.slow

REPOSITORY = "owner/tiny"
TEXT = "the film was lovely"

LOAD = """
import json, sys
from kdedge.errors import IntegrityError
from kdedge.runtime import Bundle, Classifier, hub_upload
print(json.dumps(Classifier.load(sys.argv[1]).predict(sys.argv[2]).scores))
"""


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return factories.copy_bundle(factories.tiny_bundle(), tmp_path)


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with running_hub() as hub:
        yield hub


def run(
    folder: Path, endpoint: str, *command: object, token: str = TOKEN
) -> subprocess.CompletedProcess[str]:
    """Run a command with a cache of its own and the hub at `endpoint`."""
    changes = {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_DISABLE_XET": "1",  # a storage protocol that the hub of the tests does not have
        "HF_HUB_OFFLINE": "0",
        "HF_TOKEN": token,
        "PYTHONPATH": str(ROOT),
    }
    return subprocess.run(
        list(map(str, command)),
        env=os.environ | changes,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )


def push(
    bundle: Path, hub: FakeHub, *options: str, token: str = TOKEN
) -> subprocess.CompletedProcess[str]:
    command = kdedge_command("push", str(bundle), REPOSITORY, *options)
    return run(bundle.parent, hub.url, *command, token=token)


def load(source: str, folder: Path, hub: FakeHub) -> subprocess.CompletedProcess[str]:
    return run(folder, hub.url, sys.executable, "-c", LOAD, source, TEXT)


def test_a_pushed_bundle_is_loaded_by_its_commit(bundle: Path, hub: FakeHub) -> None:
    done = push(bundle, hub, "--private", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout.splitlines()[-1])
    assert document["commit"] == hub.commit(REPOSITORY, "main")
    assert document["digest"] == json.loads((bundle / "kdedge.json").read_text())["digest"]
    assert document["url"].endswith(REPOSITORY)
    assert hub.private == {REPOSITORY}
    uploaded = hub.files[REPOSITORY, "main"]
    assert uploaded.keys() == set(factories.BUNDLE_FILES) | {"kdedge.json"}
    for name, content in uploaded.items():
        assert content == (bundle / name).read_bytes()
    expected = Classifier.load(bundle).predict(TEXT).scores
    for source in (REPOSITORY, f"{REPOSITORY}@{document['commit']}"):
        loaded = load(source, bundle.parent, hub)
        assert loaded.returncode == 0, loaded.stderr
        assert json.loads(loaded.stdout) == expected


def test_a_public_repository_gets_nothing_that_should_be_private(
    bundle: Path, hub: FakeHub
) -> None:
    hub.files[REPOSITORY, "main"] = {}
    done = push(bundle, hub, "--private")
    assert done.returncode == 2 and "exists already and is public" in done.stderr
    assert not hub.files[REPOSITORY, "main"]


def test_an_older_bundle_is_replaced_whole(bundle: Path, hub: FakeHub) -> None:
    """A file that only the older bundle has is removed; files that are no bundle's stay."""
    old = {"onnx/model_portable.onnx": b"old", "kdedge.sig": b"old", ".gitattributes": b"kept"}
    hub.files[REPOSITORY, "main"] = dict(old)
    done = push(bundle, hub)
    assert done.returncode == 0, done.stderr
    uploaded = hub.files[REPOSITORY, "main"]
    assert "onnx/model_portable.onnx" not in uploaded
    assert "kdedge.sig" not in uploaded
    assert uploaded[".gitattributes"] == b"kept"
    assert f"{REPOSITORY}@{hub.commit(REPOSITORY, 'main')}" in done.stdout


def test_a_branch_receives_the_bundle_alone(bundle: Path, hub: FakeHub) -> None:
    done = push(bundle, hub, "--revision", "v2")
    assert done.returncode == 0, done.stderr
    assert "kdedge.json" in hub.files[REPOSITORY, "v2"]
    assert hub.files[REPOSITORY, "main"] == {}
    loaded = load(f"{REPOSITORY}@v2", bundle.parent, hub)
    assert loaded.returncode == 0, loaded.stderr
    missing = load(f"{REPOSITORY}@v3", bundle.parent, hub)
    assert "cannot be downloaded" in missing.stderr


def test_nothing_is_sent_for_a_bundle_with_other_files(bundle: Path, hub: FakeHub) -> None:
    (bundle / "train.csv").write_text("a secret text")
    done = push(bundle, hub)
    assert done.returncode == 5
    assert "train.csv" in done.stderr
    (bundle / "train.csv").unlink()
    graph = bundle / "onnx" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\0")
    assert push(bundle, hub).returncode == 5
    assert hub.requests == []


def test_a_signature_is_sent_and_the_target_of_a_link_is_not(bundle: Path, hub: FakeHub) -> None:
    secret, signature = bundle.parent / "secret", bundle / "kdedge.sig"
    secret.write_text("a private key")
    signature.symlink_to(secret)
    done = push(bundle, hub)
    assert done.returncode == 5
    assert "kdedge.sig" in done.stderr
    assert hub.requests == []
    signature.unlink()
    signature.write_text("{}")
    assert push(bundle, hub).returncode == 0
    assert hub.files[REPOSITORY, "main"]["kdedge.sig"] == b"{}"


def test_a_link_that_appears_after_the_check_is_not_followed(bundle: Path, tmp_path: Path) -> None:
    opened = Bundle.open(bundle)
    (tmp_path / "secret").write_text("a private key")
    (bundle / "kdedge.sig").symlink_to(tmp_path / "secret")
    copy = tmp_path / "copy"
    copy.mkdir()
    with pytest.raises(IntegrityError, match=r"kdedge\.sig"):
        hub_upload._write_listed_files(opened, copy)
    assert not (copy / "kdedge.sig").exists()


def test_without_a_login_the_error_says_how_to_log_in(bundle: Path, hub: FakeHub) -> None:
    done = push(bundle, hub, token="")
    assert done.returncode == 4
    assert "hf auth login" in done.stderr
    assert hub.requests == []
    done = push(bundle, hub, token="hf_of-somebody-else")
    assert done.returncode == 4
    assert "owner of the repository" in done.stderr
    assert hub.files == {}


def test_without_a_network_the_error_says_so(bundle: Path, hub: FakeHub) -> None:
    with running_hub() as gone:
        pass
    done = push(bundle, gone)
    assert done.returncode == 4
    assert "cannot be uploaded" in done.stderr
    assert "network" in done.stderr


def test_the_name_of_a_repository_has_two_parts(bundle: Path, hub: FakeHub) -> None:
    done = run(bundle.parent, hub.url, *kdedge_command("push", str(bundle), "tiny"))
    assert done.returncode == 2
    assert "owner/name" in done.stderr
