"""Stages are whole or absent, kept while their inputs stay the same, and a run has one holder."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from kdedge.errors import MachineError, UsageError
from kdedge.io.atomic import recover_dir, replace_dir
from kdedge.recipe import Recipe
from kdedge.run import stage as rundir
from kdedge.run.layout import RunDir, find_run
from kdedge.run.stage import StageContext, read_stage, stage


def recipe(*students: str, **keys: str) -> Recipe:
    names = [{"kind": "bilstm", "name": name} for name in students or ("bilstm",)]
    return Recipe.model_validate(
        {"name": "r", "data": {"source": "x"}, "teacher": {"model": "t"}, "student": names, **keys}
    )


def writes(text: str):
    def make(part: Path) -> dict[str, str]:
        (part / "out.txt").write_text(text)
        return {"wrote": text}

    return make


def never(part: Path) -> dict[str, str]:
    raise AssertionError("made again")


def test_equal_inputs_are_kept_and_said(tmp_path: Path) -> None:
    said: list[str] = []

    class Ears:
        say = staticmethod(said.append)

    stage(tmp_path / "s", {"a": 1}, writes("one"))
    assert stage(tmp_path / "s", {"a": 1}, never, progress=Ears()) == {"wrote": "one"}
    assert said == ["s: same inputs, kept"]


def test_other_inputs_stop_and_say_what_changed(tmp_path: Path) -> None:
    stage(tmp_path / "s", {"fit": {"epochs": 1, "seed": 0}}, writes("one"))
    with pytest.raises(UsageError, match=r"fit\.epochs: was 1, now 2") as caught:
        stage(tmp_path / "s", {"fit": {"epochs": 2, "seed": 0}}, never)
    assert "--force" in str(caught.value) and "seed" not in caught.value.detail
    assert (tmp_path / "s" / "out.txt").read_text() == "one"
    stage(
        tmp_path / "s",
        {"fit": {"epochs": 2, "seed": 0}},
        writes("two"),
        stages=StageContext(force=True),
    )
    assert (tmp_path / "s" / "out.txt").read_text() == "two"


def test_a_failed_stage_leaves_the_former_one_and_is_gone_on_with(tmp_path: Path) -> None:
    stage(tmp_path / "s", {"a": 1}, writes("one"))

    def fails(part: Path) -> dict[str, str]:
        (part / "half").write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError):
        stage(tmp_path / "s", {"a": 2}, fails, stages=StageContext(force=True))
    assert read_stage(tmp_path / "s")["result"] == {"wrote": "one"}

    def goes_on(part: Path) -> dict[str, str]:
        assert (part / "half").exists(), "work of the same inputs is there to go on from"
        return {}

    stage(tmp_path / "s", {"a": 2}, goes_on, stages=StageContext(force=True))


def test_half_work_of_other_inputs_is_not_gone_on_with(tmp_path: Path) -> None:
    def fails(part: Path) -> dict[str, str]:
        (part / "half").write_text("half")
        raise OSError("killed")

    with pytest.raises(OSError):
        stage(tmp_path / "s", {"a": 1}, fails)

    def starts_anew(part: Path) -> dict[str, str]:
        assert not (part / "half").exists()
        return {}

    stage(tmp_path / "s", {"a": 2}, starts_anew)


def test_a_folder_replaces_another_in_one_move(tmp_path: Path) -> None:
    for name in ("new.part", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "who").write_text(name)
    replace_dir(tmp_path / "new.part", tmp_path / "new")
    assert (tmp_path / "new" / "who").read_text() == "new.part"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new"]


@pytest.mark.parametrize("was", ["file", "link", "old file", "killed"])
def test_a_folder_takes_its_place_whatever_stood_there(tmp_path: Path, was: str) -> None:
    part, folder, old = (tmp_path / f"new{end}" for end in (".part", "", ".old"))
    for name in ("new.part", "elsewhere"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "who").write_text(name)
    if was == "file":
        folder.write_text("a file")
    elif was == "link":
        folder.symlink_to(tmp_path / "elsewhere")
    elif was == "old file":
        old.write_text("left over")
    else:
        (tmp_path / "elsewhere").rename(old)
        recover_dir(folder)
        assert (folder / "who").read_text() == "elsewhere", (
            "what a kill between two renames left aside"
        )
    replace_dir(part, folder)
    assert (folder / "who").read_text() == "new.part" and not folder.is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == (
        ["new"] if was == "killed" else ["elsewhere", "new"]
    )
    assert was == "killed" or (tmp_path / "elsewhere" / "who").exists(), (
        "a link is removed, and not what it points to"
    )


def test_one_student_lives_in_the_run_and_several_in_folders_of_their_own(tmp_path: Path) -> None:
    assert RunDir(tmp_path, recipe()).student_dirs == {"bilstm": tmp_path}
    assert RunDir(tmp_path, recipe("a", "b")).student_dirs == {
        "a": tmp_path / "a",
        "b": tmp_path / "b",
    }


def test_a_run_is_found_from_inside_and_names_the_students_meant(tmp_path: Path) -> None:
    made = RunDir.create(recipe("a", "b"), tmp_path)
    inside = made.folder / "b" / "bundle"
    inside.mkdir(parents=True)
    run, students = RunDir.open(inside)
    assert run.recipe == made.recipe and students == ["b"]
    assert RunDir.open(made.folder)[1] == ["a", "b"]
    assert find_run(tmp_path) is None
    with pytest.raises(UsageError, match="not a run"):
        RunDir.open(tmp_path)


def test_shared_stages_stand_in_the_run_that_is_shared(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "r", recipe(share="both"))
    assert (
        run.teacher == tmp_path / "both" / "teacher"
        and run.transfer == tmp_path / "both" / "transfer"
    )


def test_a_second_holder_is_refused_and_told_of_the_first(tmp_path: Path) -> None:
    run = RunDir.create(recipe(), tmp_path)
    code = f"""
import sys; sys.path[:0] = {sys.path!r}
from pathlib import Path
from kdedge.run.layout import Run
run, _ = Run.open(Path({str(run.folder)!r}))
with run.locked():
    print("held", flush=True)
    sys.stdin.readline()
"""
    holder = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdin is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(MachineError, match=f"process {holder.pid}"), run.locked():
        pass
    holder.communicate("\n", timeout=30)
    with run.locked():
        pass


def test_a_recipe_gives_way_only_when_the_stages_are_those_of_the_new_one(tmp_path: Path) -> None:
    first = RunDir.create(recipe(), tmp_path)
    before = (first.folder / "recipe.toml").read_text()
    again = RunDir.create(recipe().model_copy(update={"seed": 7}), tmp_path)
    assert (first.folder / "recipe.toml").read_text() == before, (
        "a run that is rejected later must still know itself"
    )
    again.describe()
    assert find_run(first.folder).recipe.seed == 7  # type: ignore[union-attr]


def test_a_file_where_runs_should_stand_is_told(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(MachineError, match="folder cannot be made"):
        RunDir.create(recipe(), tmp_path / "runs")


def test_a_student_is_not_named_after_a_folder_of_the_run() -> None:
    with pytest.raises(ValueError, match="cannot be called teacher"):
        recipe("teacher", "b")


def test_an_undistilled_twin_of_another_student_does_not_count(tmp_path: Path) -> None:
    run = RunDir.create(recipe(), tmp_path)
    for name, size in (("student", 20), ("baseline", 20)):
        stage(run.folder / name, {"student": size, "objective": name}, lambda part: {})
    assert run.baseline_dir("bilstm") == run.folder / "baseline"
    stage(
        run.folder / "student",
        {"student": 30, "objective": "student"},
        lambda part: {},
        stages=StageContext(force=True),
    )
    assert run.baseline_dir("bilstm") is None


@pytest.mark.parametrize("left", ["a file", "half a plan"])
def test_what_is_left_of_a_stage_does_not_stop_the_next(tmp_path: Path, left: str) -> None:
    part = tmp_path / "s.part"
    if left == "a file":
        part.write_text("")
    else:
        part.mkdir()
        (part / "inputs.json").write_text('{"a": ')
    assert stage(tmp_path / "s", {"a": 1}, writes("one")) == {"wrote": "one"}


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_place_that_cannot_be_written_to_is_told(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rejects(*_: object) -> None:
        raise OSError(number, "no", str(tmp_path))

    monkeypatch.setattr(rundir, "_begin", rejects)
    with pytest.raises(MachineError, match="cannot be written to"):
        stage(tmp_path / "s", {"a": 1}, writes("one"))


def test_a_result_that_is_no_table_is_not_a_finished_stage(tmp_path: Path) -> None:
    stage(tmp_path / "s", {"a": 1}, writes("one"))
    (tmp_path / "s" / "stage.json").write_text('{"inputs": {}, "result": [1]}')
    with pytest.raises(UsageError, match="not a finished stage"):
        read_stage(tmp_path / "s")
