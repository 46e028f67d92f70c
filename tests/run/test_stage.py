"""Stages are whole or absent and reused by their inputs; one process locks a run."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kdedge.errors import Interrupted, MachineError, UsageError
from kdedge.io.atomic import recover_dir, replace_dir
from kdedge.nn.text_model import MeasuredResult
from kdedge.recipe import RUN_FOLDERS, Recipe
from kdedge.run import stage as stage_module
from kdedge.run.layout import RunDir, find_run
from kdedge.run.paths import StudentDir
from kdedge.run.signals import Terminated
from kdedge.run.stage import StageContext, read_result, read_stage, stage


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


def test_a_stage_with_equal_inputs_is_reused(tmp_path: Path) -> None:
    lines: list[str] = []

    class Messages:
        say = staticmethod(lines.append)

    stage(tmp_path / "s", {"a": 1}, writes("one"))
    assert stage(tmp_path / "s", {"a": 1}, never, stages=StageContext(progress=Messages())) == {
        "wrote": "one"
    }
    assert lines == ["s: same inputs, kept"]


def test_other_inputs_raise_and_list_the_differences(tmp_path: Path) -> None:
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


def test_a_failed_stage_keeps_the_old_one_and_can_be_resumed(tmp_path: Path) -> None:
    stage(tmp_path / "s", {"a": 1}, writes("one"))

    def fails(part: Path) -> dict[str, str]:
        (part / "half").write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError):
        stage(tmp_path / "s", {"a": 2}, fails, stages=StageContext(force=True))
    assert read_stage(tmp_path / "s").result == {"wrote": "one"}

    def resumes(part: Path) -> dict[str, str]:
        assert (part / "half").exists(), "unfinished work with the same inputs is passed again"
        return {}

    stage(tmp_path / "s", {"a": 2}, resumes, stages=StageContext(force=True))


@pytest.mark.parametrize(
    "stop, number", [(KeyboardInterrupt, signal.SIGINT), (Terminated, signal.SIGTERM)]
)
def test_a_signal_is_reported_with_the_stage_that_it_stopped(
    tmp_path: Path, stop: type[BaseException], number: int
) -> None:
    def stopped(part: Path) -> dict[str, str]:
        (part / "half").write_text("half")
        raise stop

    order = StageContext(order=(tmp_path / "run" / "augment",))
    with pytest.raises(Interrupted, match="stage 1 of 1, run/augment: stopped by") as caught:
        stage(tmp_path / "run" / "augment", {"a": 1}, stopped, stages=order)
    assert caught.value.exit_code == 128 + number
    assert "run the same command" in caught.value.hint

    def resumes(part: Path) -> dict[str, str]:
        return {"found": (part / "half").read_text()}

    assert stage(tmp_path / "run" / "augment", {"a": 1}, resumes) == {"found": "half"}


def test_a_kill_while_files_are_hashed_loses_no_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hashing is the last step of a stage, and takes long for large files."""

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stage_module, "record_files", killed)
        with pytest.raises(KeyboardInterrupt):
            stage(tmp_path / "s", {"a": 1}, writes("one"))

    def resumes(part: Path) -> dict[str, str]:
        return {"found": (part / "out.txt").read_text()}

    assert stage(tmp_path / "s", {"a": 1}, resumes) == {"found": "one"}
    assert {path.name for path in (tmp_path / "s").iterdir()} == {"out.txt", "stage.json"}
    assert read_stage(tmp_path / "s").files.keys() == {"out.txt"}


def test_unfinished_work_from_other_inputs_is_removed(tmp_path: Path) -> None:
    def fails(part: Path) -> dict[str, str]:
        (part / "half").write_text("half")
        raise OSError("killed")

    with pytest.raises(OSError):
        stage(tmp_path / "s", {"a": 1}, fails)

    def starts_again(part: Path) -> dict[str, str]:
        assert not (part / "half").exists()
        return {}

    stage(tmp_path / "s", {"a": 2}, starts_again)


def test_a_folder_replaces_another(tmp_path: Path) -> None:
    for name in ("new.part", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "who").write_text(name)
    replace_dir(tmp_path / "new.part", tmp_path / "new")
    assert (tmp_path / "new" / "who").read_text() == "new.part"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new"]


@pytest.mark.parametrize("was", ["file", "link", "old file", "killed"])
def test_a_folder_replaces_whatever_has_its_name(tmp_path: Path, was: str) -> None:
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
        assert (folder / "who").read_text() == "elsewhere", "a kill came between the two renames"
    replace_dir(part, folder)
    assert (folder / "who").read_text() == "new.part" and not folder.is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == (
        ["new"] if was == "killed" else ["elsewhere", "new"]
    )
    assert was == "killed" or (tmp_path / "elsewhere" / "who").exists(), (
        "a link is removed, and not what it points to"
    )


def test_several_students_have_a_folder_each(tmp_path: Path) -> None:
    assert RunDir(tmp_path, recipe()).students == {"bilstm": StudentDir("bilstm", tmp_path)}
    assert RunDir(tmp_path, recipe("a", "b")).students == {
        "a": StudentDir("a", tmp_path / "a"),
        "b": StudentDir("b", tmp_path / "b"),
    }


def test_a_run_is_found_from_inside_with_the_students_named(tmp_path: Path) -> None:
    made = RunDir.create(recipe("a", "b"), tmp_path)
    inside = made.folder / "b" / "bundle"
    inside.mkdir(parents=True)
    run, students = RunDir.open(inside)
    assert run.recipe == made.recipe and students == ["b"]
    assert RunDir.open(made.folder)[1] == ["a", "b"]
    (made.folder / "c").mkdir()  # a student that a stopped run has trained, or any other folder
    with pytest.raises(UsageError, match="no student of its recipe") as caught:
        RunDir.open(made.folder / "c")
    assert "students: a, b" in caught.value.detail
    assert find_run(tmp_path) is None
    with pytest.raises(UsageError, match="not a run"):
        RunDir.open(tmp_path)


def test_shared_stages_are_in_the_shared_run(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "r", recipe(share="both"))
    assert (
        run.teacher == tmp_path / "both" / "teacher"
        and run.transfer == tmp_path / "both" / "transfer"
    )


def test_a_second_process_cannot_lock_a_run(tmp_path: Path) -> None:
    run = RunDir.create(recipe(), tmp_path)
    code = f"""
import sys; sys.path[:0] = {sys.path!r}
from pathlib import Path
from kdedge.run.layout import RunDir
run, _ = RunDir.open(Path({str(run.folder)!r}))
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


def test_a_saved_recipe_stays_until_the_run_is_described_again(tmp_path: Path) -> None:
    first = RunDir.create(recipe(), tmp_path)
    before = (first.folder / "recipe.toml").read_text()
    again = RunDir.create(recipe().model_copy(update={"seed": 7}), tmp_path)
    assert (first.folder / "recipe.toml").read_text() == before, "the run may still be rejected"
    again.describe()
    assert find_run(first.folder).recipe.seed == 7  # type: ignore[union-attr]


def test_a_file_named_runs_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(MachineError, match="folder cannot be made"):
        RunDir.create(recipe(), tmp_path / "runs")


def test_no_student_can_be_named_after_a_folder_of_the_run() -> None:
    folders = set()
    for value, kind in (
        (RunDir(Path("r"), recipe()), RunDir),
        (StudentDir("s", Path("r")), StudentDir),
    ):
        for name, attribute in vars(kind).items():
            path = getattr(value, name) if isinstance(attribute, property) else None
            if isinstance(path, Path) and path.suffix == "" and path.parent == Path("r"):
                folders.add(path.name)
    assert folders == RUN_FOLDERS


def test_every_stage_has_the_cache_version_among_its_inputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage(tmp_path / "s", {"a": 1}, writes("one"))
    monkeypatch.setattr(stage_module, "CACHE_VERSION", stage_module.CACHE_VERSION + 1)
    with pytest.raises(UsageError, match=r"cache_version: was \d+, now \d+"):
        stage(tmp_path / "s", {"a": 1}, never)


def test_a_student_is_not_named_after_a_folder_of_the_run() -> None:
    with pytest.raises(ValueError, match="cannot be called teacher"):
        recipe("teacher", "b")


def test_a_baseline_of_an_older_student_does_not_count(tmp_path: Path) -> None:
    run = RunDir.create(recipe(), tmp_path)
    for name, size in (("student", 20), ("baseline", 20)):
        stage(run.folder / name, {"student": size, "objective": name}, lambda part: {})
    assert run.students["bilstm"].current_baseline() == run.folder / "baseline"
    stage(
        run.folder / "student",
        {"student": 30, "objective": "student"},
        lambda part: {},
        stages=StageContext(force=True),
    )
    assert run.students["bilstm"].current_baseline() is None


@pytest.mark.parametrize("left", ["a file", "half a plan"])
def test_leftovers_of_a_stage_do_not_stop_the_next(tmp_path: Path, left: str) -> None:
    part = tmp_path / "s.part"
    if left == "a file":
        part.write_text("")
    else:
        part.mkdir()
        (part / "inputs.json").write_text('{"a": ')
    assert stage(tmp_path / "s", {"a": 1}, writes("one")) == {"wrote": "one"}


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_folder_that_cannot_be_written_to_is_an_error(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rejects(*_: object) -> None:
        raise OSError(number, "no", str(tmp_path))

    monkeypatch.setattr(stage_module, "_begin", rejects)
    with pytest.raises(MachineError, match="cannot be written to"):
        stage(tmp_path / "s", {"a": 1}, writes("one"))


def test_a_stage_whose_result_is_no_table_is_not_finished(tmp_path: Path) -> None:
    stage(tmp_path / "s", {"a": 1}, writes("one"))
    (tmp_path / "s" / "stage.json").write_text('{"inputs": {}, "result": [1]}')
    with pytest.raises(UsageError, match="not a finished stage"):
        read_stage(tmp_path / "s")


def test_a_result_is_read_as_a_type(tmp_path: Path) -> None:
    result = MeasuredResult("accuracy", 0.5, 0.75, 10, 32)
    stage(tmp_path / "s", {"a": 1}, lambda part: result.to_json() | {"other": 1})
    assert read_result(tmp_path / "s", MeasuredResult) == result


def test_a_result_of_another_type_names_the_missing_value(tmp_path: Path) -> None:
    stage(tmp_path / "s", {"a": 1}, writes("one"))
    with pytest.raises(UsageError, match=r"no valid MeasuredResult \(KeyError\('metric'\)\)"):
        read_result(tmp_path / "s", MeasuredResult)
