"""A finished stage is reused only if its files are those that it wrote."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from kdedge.errors import IntegrityError, UsageError
from kdedge.run import stage_files
from kdedge.run.stage import StageContext, StageNeeded, read_stage, stage, verify_stage

CONTENT = bytes(range(256)) * 8


def make(part: Path) -> dict[str, int]:
    (part / "deep").mkdir(exist_ok=True)
    (part / "model.safetensors").write_bytes(CONTENT)
    (part / "deep" / "log.jsonl").write_text("{}")
    (part / "shard-00000.npy").write_bytes(b"0")
    return {"made": 1}


def never(part: Path) -> dict[str, int]:
    raise AssertionError("made again")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    stage(tmp_path / "s", {"a": 1}, make, temporary="shard-*")
    return tmp_path / "s"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)


def flip_and_keep_times(path: Path) -> None:
    status = path.stat()
    flip(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


CHANGES = pytest.mark.parametrize("change", [flip, cut, Path.unlink])


def test_every_file_is_recorded_but_the_temporary_ones(folder: Path) -> None:
    files = read_stage(folder).files
    assert sorted(files) == ["deep/log.jsonl", "model.safetensors"]
    assert files["model.safetensors"].size == len(CONTENT)
    (folder / "shard-00000.npy").unlink()
    verify_stage(folder)


@CHANGES
def test_a_changed_file_is_an_error_that_names_it(
    folder: Path, change: Callable[[Path], None]
) -> None:
    change(folder / "model.safetensors")
    with pytest.raises(IntegrityError, match=r"s/model\.safetensors") as caught:
        stage(folder, {"a": 1}, never)
    assert caught.value.exit_code == 5
    assert "--force" in caught.value.hint and str(folder) in caught.value.hint
    with pytest.raises(IntegrityError, match=r"model\.safetensors"):
        verify_stage(folder)


@CHANGES
def test_force_makes_a_changed_stage_again(folder: Path, change: Callable[[Path], None]) -> None:
    change(folder / "model.safetensors")
    stage(folder, {"a": 1}, make, stages=StageContext(force=True))
    assert (folder / "model.safetensors").read_bytes() == CONTENT


def test_a_plan_names_the_changed_file(folder: Path) -> None:
    flip(folder / "model.safetensors")
    with pytest.raises(StageNeeded) as caught:
        stage(folder, {"a": 1}, never, stages=StageContext(dry_run=True))
    assert "model.safetensors" in caught.value.differences[0]


def test_a_copied_stage_is_reused_if_its_content_is_equal(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy, copy_function=shutil.copyfile)
    assert stage(copy, {"a": 1}, never) == {"made": 1}
    flip(copy / "model.safetensors")
    with pytest.raises(IntegrityError):
        stage(copy, {"a": 1}, never)


def test_nothing_is_read_if_no_time_has_changed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_files, "hash_file", None)
    assert stage(folder, {"a": 1}, never) == {"made": 1}
    with pytest.raises(TypeError):
        verify_stage(folder)


def test_a_change_that_keeps_size_and_time_is_found_where_everything_is_read(folder: Path) -> None:
    flip_and_keep_times(folder / "model.safetensors")
    assert stage(folder, {"a": 1}, never) == {"made": 1}
    with pytest.raises(IntegrityError, match=r"model\.safetensors"):
        verify_stage(folder)


@pytest.mark.parametrize("files", [None, [], {"model.safetensors": {"size": 1}}])
def test_a_stage_without_valid_records_is_not_finished(folder: Path, files: object) -> None:
    document = json.loads((folder / "stage.json").read_text())
    document["files"] = files
    if files is None:
        del document["files"]
    (folder / "stage.json").write_text(json.dumps(document))
    with pytest.raises(UsageError, match="not a finished stage"):
        stage(folder, {"a": 1}, never)
