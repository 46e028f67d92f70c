"""One experiment on disk: stages that are whole or absent, kept while their inputs stay the same.

    runs/<name>/recipe.toml  run.json  teacher/  generator/  augment/  transfer/  student/  undistilled/  bundle/  bench/

With several students, `student/`, `undistilled/` and `bundle/` stand in a folder of the student's name.
With several teachers, each stands in `teacher-NAME/` and what they say together in `teacher/`.
`teacher/`, `generator/`, `augment/` and `transfer/` stand in `runs/<share>/` when the recipe says so.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from kdedge import __version__
from kdedge.errors import MachineError, UsageError
from kdedge.files import json_text, remove, write_whole
from kdedge.processes import barrier, is_main, main_does
from kdedge.progress import SILENT, Progress
from kdedge.recipe import Recipe, load_recipe

STAGE_FILE = "stage.json"


@dataclass(frozen=True)
class Run:
    """An experiment's folder and the recipe that made it."""

    folder: Path
    recipe: Recipe

    @property
    def shared(self) -> Path:
        """Where teacher/ and transfer/ stand: this run, or the one it shares them with."""
        return self.folder.parent / self.recipe.share if self.recipe.share else self.folder

    @property
    def teacher(self) -> Path:
        return self.shared / "teacher"

    @property
    def teachers(self) -> dict[str, Path]:
        """Teacher name -> its folder, where there are several; none where `teacher` holds the one."""
        names = self.recipe.teacher_names
        return {name: self.shared / f"teacher-{name}" for name in names} if len(names) > 1 else {}

    @property
    def transfer(self) -> Path:
        return self.shared / "transfer"

    @property
    def augment(self) -> Path:
        return self.shared / "augment"

    @property
    def homes(self) -> dict[str, Path]:
        """Student name -> folder that holds its student/, undistilled/ and bundle/."""
        names = [self.recipe.student_name(s) for s in self.recipe.student]
        return {name: self.folder if len(names) == 1 else self.folder / name for name in names}

    def assistant(self, student: str) -> bool:
        """Whether the recipe gives a student an assistant, whose stage stands beside it."""
        return any(one.assistant is not None for one in self.recipe.student if self.recipe.student_name(one) == student)

    def check_exportable(self, students: Iterable[str]) -> None:
        """Raises UsageError for a student whose answer is a sum of two models, which no bundle holds."""
        for name in students:
            if self.assistant(name):
                key = f"student.{name}.assistant" if len(self.homes) > 1 else "student.assistant"
                next_step = f"distill once more with --set {key}= (the student itself is kept), then export"
                raise UsageError("an assistant is not exported: a bundle holds one student", f"{name} has one", next_step)

    def undistilled(self, student: str) -> Path | None:
        """The folder of the same student trained on the labels alone, where there is one made like the student that stands now."""
        folder = self.homes[student] / "undistilled"
        if not folder.exists():
            return None
        mine, twin = (read_stage(self.homes[student] / name)["inputs"] | {"objective": None} for name in ("student", "undistilled"))
        return folder if mine == twin else None

    @classmethod
    def create(cls, recipe: Recipe, runs: Path) -> Run:
        """Make `runs/<name>/` with the resolved recipe in it, or re-enter it: `describe` then says when its recipe gives way.

        Raises MachineError where the folder cannot be made.
        """
        run = cls(runs / recipe.name, recipe)
        if is_main() and not (run.folder / "recipe.toml").exists():
            run.describe()
        return run

    def describe(self) -> None:
        """Write recipe.toml and run.json, by which `export` and `bench` know the run: only once its stages are those of the recipe."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MachineError("the run's folder cannot be made", f"{self.folder}: {error.strerror}", "choose another folder with --runs") from error
        write_whole(self.folder / "recipe.toml", self.recipe.to_toml())
        homes = {name: os.path.relpath(home, self.folder) for name, home in self.homes.items()}
        write_whole(self.folder / "run.json", json_text({"kdedge": __version__, "share": self.recipe.share, "students": homes}))

    @classmethod
    def open(cls, path: Path) -> tuple[Run, list[str]]:
        """The run that `path` is or lies in, and the names of the students `path` means.

        `runs/x` means all students, `runs/x/bilstm`, `runs/x/bilstm/student` or `.../bundle` the one.
        Raises UsageError where no folder above holds a recipe.toml.
        """
        run = find_run(path)
        if run is None:
            raise UsageError("this is not a run, nor inside one", f"{path}", "name a folder made by `kdedge distill`, such as runs/quickstart")
        here = path.resolve()
        meant = [name for name, home in run.homes.items() if here.is_relative_to(home.resolve())]
        return run, meant or list(run.homes)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process; MachineError names the holder when another has it."""
        if not is_main():
            yield
            return
        holders = [folder / ".lock" for folder in dict.fromkeys((self.shared, self.folder))]
        locks = []
        try:
            for holder in holders:
                holder.parent.mkdir(parents=True, exist_ok=True)
                lock = FileLock(str(holder), timeout=0)
                try:
                    lock.acquire()
                except Timeout as error:
                    note = holder.with_name(".lock-holder")
                    who = note.read_text() if note.exists() else "another process"
                    raise MachineError("this run is in use", f"{holder.parent} is held by {who}", "wait for it, or give this recipe another name") from error
                locks.append(lock)
                holder.with_name(".lock-holder").write_text(f"process {os.getpid()}")
            yield
        finally:
            for lock in locks:
                lock.release()


def find_run(path: Path) -> Run | None:
    """The nearest run at or above `path`, at most three folders up."""
    here = path.resolve()
    for folder in (here, *list(here.parents)[:3]):
        if (folder / "run.json").is_file() and (folder / "recipe.toml").is_file():
            return Run(folder, load_recipe(folder / "recipe.toml"))
    return None


def stage(
    folder: Path,
    inputs: dict[str, Any],
    make: Callable[[Path], dict[str, Any]],
    *,
    force: bool = False,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Make one stage folder, or keep it when it was made from equal inputs; returns its result.

    `make(part)` fills `part` and returns a JSON-able result; `part` survives an interruption, so that
    `make` can go on where it stopped as long as the inputs are equal.
    Raises UsageError that says what changed when the stage exists from other inputs, unless `force`.
    """
    inputs = json.loads(json.dumps(inputs))
    if folder.exists():
        old = read_stage(folder)
        if old["inputs"] == inputs:
            progress.say(f"{folder.name}: same inputs, kept")
            return dict(old["result"])
        if not force:
            changed = "; ".join(_differences(old["inputs"], inputs))
            raise UsageError(f"{folder} was made from other inputs", changed, "give the run another name, or pass --force to make it again")
    part = folder.with_name(folder.name + ".part")
    try:
        main_does(lambda: _begin(part, inputs))
        result = make(part)
        barrier()  # another process may still read what stands in `part`
        main_does(lambda: _finish(part, folder, inputs, result))
    except Exception as error:
        if _no_room(error):
            raise MachineError("there is no room left on the disk", f"{part}: {error}", "make room and run the same command: what is done is kept") from error
        if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise MachineError("this folder cannot be written to", str(error), "give the run a place where you may write, and run the same command") from error
        raise
    return result


def _no_room(error: Exception) -> bool:
    """Libraries that write in another language have errors of their own for it."""
    return (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)) or "No space left on device" in str(error)


def _begin(part: Path, inputs: dict[str, Any]) -> None:
    plan = part / "inputs.json"
    if not plan.is_file() or plan.read_text(encoding="utf-8", errors="replace") != json_text(inputs):
        remove(part)
    part.mkdir(parents=True, exist_ok=True)
    write_whole(plan, json_text(inputs))


def _finish(part: Path, folder: Path, inputs: dict[str, Any], result: dict[str, Any]) -> None:
    (part / "inputs.json").unlink(missing_ok=True)
    write_whole(part / STAGE_FILE, json_text({"inputs": inputs, "result": result}))
    put_in_place(part, folder)


def read_stage(folder: Path) -> dict[str, Any]:
    """`{"inputs": ..., "result": ...}` of a finished stage; UsageError where it is not one."""
    try:
        document = json.loads((folder / STAGE_FILE).read_text(encoding="utf-8"))
        return {"inputs": dict(document["inputs"]), "result": dict(document["result"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError("this folder is not a finished stage of a run", f"{folder}: {error}", "run the command that makes it, or remove the folder") from error


def put_in_place(part: Path, folder: Path) -> None:
    """Rename a finished folder over an older one; at every moment one of the two is whole."""
    old = folder.with_name(folder.name + ".old")
    put_back(folder)
    remove(old)
    if folder.exists() or folder.is_symlink():
        folder.rename(old)
    part.rename(folder)
    remove(old)


def put_back(folder: Path) -> None:
    """Where a kill came between the two renames of `put_in_place`, what was there before is there again."""
    old = folder.with_name(folder.name + ".old")
    if old.exists() and not folder.exists():
        old.rename(folder)


def hash_files(folder: Path, names: tuple[str, ...]) -> str:
    """SHA-256 over the named files of a folder, in order; a missing one counts as empty."""
    digest = hashlib.sha256()
    for name in names:
        path = folder / name
        digest.update(name.encode() + b"\0")
        if path.is_file():
            with path.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()


def _differences(old: Any, new: Any, path: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        return [line for key in sorted(old.keys() | new.keys()) for line in _differences(old.get(key), new.get(key), f"{path}.{key}".lstrip("."))]
    return [] if old == new else [f"{path}: was {_short(old)}, now {_short(new)}"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
