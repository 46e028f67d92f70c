"""Bundles from zip files and from the hub's local cache; hostile ones are rejected."""

from __future__ import annotations

import os
import pickle
import random
import stat
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import factories
import pytest

from kdedge.errors import IntegrityError, KdedgeError, MachineError, UsageError
from kdedge.runtime import Bundle, Classifier
from kdedge.runtime.bundle_source import MAX_ENTRIES, open_bundle
from kdedge.runtime.layout import MANIFEST

TEXT = "the film was good"


@pytest.fixture
def bundle() -> Path:
    return factories.tiny_bundle("bilstm", "single")


def zip_bundle(bundle: Path, path: Path, prefix: str = "", compress: int = 8) -> Path:
    """Zip the files of a bundle, as `zip -r` does."""
    with zipfile.ZipFile(path, "w", compress) as archive:
        for file in sorted(bundle.rglob("*")):
            archive.write(file, prefix + file.relative_to(bundle).as_posix())
    return path


def extended(bundle: Path, path: Path, add: Callable[[zipfile.ZipFile], None]) -> Path:
    """Zip a bundle, and let `add` write more entries."""
    zip_bundle(bundle, path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        add(archive)
    return path


@pytest.mark.parametrize("prefix", ["", "bundle/", "my bundle/"])
@pytest.mark.parametrize("compress", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_gives_the_predictions_of_its_folder(
    bundle: Path, tmp_path: Path, prefix: str, compress: int
) -> None:
    path = zip_bundle(bundle, tmp_path / "b.zip", prefix, compress)
    assert Classifier.load(path).predict(TEXT) == Classifier.load(bundle).predict(TEXT)
    assert open_bundle(path).folder == path


def test_a_classifier_finds_its_bundle_from_another_folder(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path is as good as an absolute one, also after the process has moved."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    zip_bundle(bundle, Path("b.zip"))
    Path("folder").symlink_to(bundle)
    classifiers = [Classifier.load("b.zip"), Classifier.load("folder")]
    monkeypatch.chdir("elsewhere")
    for classifier in classifiers:
        assert pickle.loads(pickle.dumps(classifier)).predict(TEXT) == classifier.predict(TEXT)


def test_an_open_bundle_is_taken_as_it_is(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    assert open_bundle(opened) is opened


def test_no_temporary_folder_remains(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = zip_bundle(bundle, tmp_path / "b.zip")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    open_bundle(path)
    assert list(scratch.iterdir()) == []


def linked(archive: zipfile.ZipFile) -> None:
    entry = zipfile.ZipInfo("config.json")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive.writestr(entry, "/etc/passwd")


HOSTILE: dict[str, Callable[[zipfile.ZipFile], None]] = {
    "traversal": lambda archive: archive.writestr("../evil.json", "{}"),
    "absolute": lambda archive: archive.writestr("/tmp/evil.json", "{}"),
    "backslash": lambda archive: archive.writestr("..\\evil.json", "{}"),
    "inner traversal": lambda archive: archive.writestr("onnx/../../evil.json", "{}"),
    "other file": lambda archive: archive.writestr("model.pkl", "{}"),
    "code": lambda archive: archive.writestr("modeling.py", "raise SystemExit"),
    "twice": lambda archive: archive.writestr(MANIFEST, "{}"),
    "bomb": lambda archive: archive.writestr("onnx/model_portable.onnx", bytes(50_000_000)),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_zip_writes_nothing_outside(bundle: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    path = extended(bundle, folder / "b.zip", HOSTILE[name])
    with pytest.raises(IntegrityError, match="the zip is no bundle"):
        Classifier.load(path)
    assert [item.name for item in tmp_path.iterdir()] == ["here"]
    assert [item.name for item in folder.iterdir()] == ["b.zip"]


def test_a_link_is_rejected(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "b.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(bundle / MANIFEST, MANIFEST)
        linked(archive)
    with pytest.raises(IntegrityError, match="link"):
        open_bundle(path)


def test_too_many_entries_are_rejected(bundle: Path, tmp_path: Path) -> None:
    def add(archive: zipfile.ZipFile) -> None:
        for number in range(MAX_ENTRIES):
            archive.writestr(f"{number}/", "")

    path = extended(bundle, tmp_path / "b.zip", add)
    with pytest.raises(IntegrityError, match="entries"):
        open_bundle(path)


def test_a_missing_file_is_named(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "b.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(bundle / MANIFEST, MANIFEST)
    with pytest.raises(IntegrityError, match=r"README\.md"):
        open_bundle(path)


def count_rejected(bundle: Path, damaged: Iterable[bytes], path: Path) -> int:
    """Open zips: either every hash is right, or a KdedgeError says what is not."""
    expected = dict(Bundle.open(bundle).contents)
    rejected = 0
    for content in damaged:
        path.write_bytes(content)
        try:
            assert dict(open_bundle(path).contents) == expected
        except KdedgeError:
            rejected += 1
    return rejected


def test_two_hundred_damaged_zips_give_the_bundle_or_an_error(bundle: Path, tmp_path: Path) -> None:
    """Flip bytes and cut the end."""
    content = zip_bundle(bundle, tmp_path / "b.zip").read_bytes()
    chance = random.Random(0)

    def damaged() -> Iterator[bytes]:
        for number in range(200):
            flipped = bytearray(content)
            for _ in range(chance.randint(1, 4)):
                flipped[chance.randrange(len(flipped))] ^= 1 << chance.randrange(8)
            yield flipped[: chance.randrange(len(flipped))] if number % 4 == 0 else flipped

    assert count_rejected(bundle, damaged(), tmp_path / "damaged.zip") > 100


@pytest.mark.slow
def test_damaged_tables_of_contents_give_the_bundle_or_an_error(
    bundle: Path, tmp_path: Path
) -> None:
    """Write other bytes into the table at the end: every byte of it once, then at random."""
    content = zip_bundle(bundle, tmp_path / "b.zip").read_bytes()
    table = content.index(b"PK\x01\x02")
    chance = random.Random(0)

    def damaged() -> Iterator[bytes]:
        for place in range(table, len(content)):
            yield content[:place] + b"\0" + content[place + 1 :]
        for _ in range(200):
            place = chance.randrange(table, len(content) - 4)
            yield content[:place] + bytes(chance.choices((0, 255), k=4)) + content[place + 4 :]

    assert count_rejected(bundle, damaged(), tmp_path / "damaged.zip") > 200


@pytest.mark.parametrize(
    "name", ["missing", "runs/x/bundle", "missing.zip", "a b/c d", "/no/where"]
)
def test_a_missing_bundle_is_a_usage_error(name: str) -> None:
    with pytest.raises(UsageError, match="not a bundle"):
        Classifier.load(name)


@pytest.mark.parametrize("source", [3, None, b"bundle"])
def test_a_source_that_is_no_path_is_a_usage_error(source: Any) -> None:
    with pytest.raises(UsageError, match="named by its folder"):
        Classifier.load(source)


def test_a_zip_where_a_folder_is_needed_has_a_hint(tmp_path: Path) -> None:
    path = tmp_path / "bundle.zip"
    path.write_bytes(b"zip")
    with pytest.raises(UsageError) as caught:
        Bundle.open(path)
    assert "unzip it" in caught.value.hint


def test_a_file_that_is_no_zip_is_a_usage_error(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"not a zip")
    with pytest.raises(UsageError, match="neither a folder nor a zip"):
        Classifier.load(path)


def cache_bundle(bundle: Path, cache: Path) -> Path:
    """Lay a bundle into a cache of the hub as a download does; return the snapshot's folder."""
    repository = cache / "models--owner--tiny"
    snapshot = repository / "snapshots" / ("a" * 40)
    (repository / "blobs").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    for number, file in enumerate(path for path in bundle.rglob("*") if path.is_file()):
        blob = repository / "blobs" / f"{number:040d}"
        blob.write_bytes(file.read_bytes())
        link = snapshot / file.relative_to(bundle)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return snapshot


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return folder


def test_a_hub_id_is_read_from_the_cache_without_a_network(bundle: Path, cache: Path) -> None:
    snapshot = cache_bundle(bundle, cache)
    (snapshot / ".gitattributes").write_text("")
    (snapshot / "pytorch_model.bin").write_bytes(b"never read")
    assert Classifier.load("owner/tiny").predict(TEXT) == Classifier.load(bundle).predict(TEXT)


def test_a_branch_may_have_slashes(bundle: Path, cache: Path) -> None:
    snapshot = cache_bundle(bundle, cache)
    branch = snapshot.parent.parent / "refs" / "refs" / "pr"
    branch.mkdir(parents=True)
    (branch / "1").write_text("a" * 40)
    assert Classifier.load("owner/tiny@refs/pr/1").predict(TEXT).label


def test_a_link_out_of_the_cache_is_rejected(bundle: Path, cache: Path, tmp_path: Path) -> None:
    snapshot = cache_bundle(bundle, cache)
    (tmp_path / "secret.json").write_text("{}")
    (snapshot / "golden.json").unlink()
    (snapshot / "golden.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(IntegrityError, match="out of it"):
        Classifier.load("owner/tiny")


def test_a_repository_without_a_manifest_is_no_bundle(bundle: Path, cache: Path) -> None:
    (cache_bundle(bundle, cache) / MANIFEST).unlink()
    with pytest.raises(UsageError, match="not a bundle"):
        Classifier.load("owner/tiny")


def test_an_unreachable_repository_is_a_machine_error(cache: Path) -> None:
    with pytest.raises(MachineError, match="cannot be downloaded") as error:
        Classifier.load("owner/missing")
    assert "no folder 'owner/missing' exists here" in error.value.hint


def test_a_path_object_is_never_a_hub_id(cache: Path) -> None:
    with pytest.raises(UsageError, match="not a bundle"):
        Classifier.load(Path("owner/missing"))
