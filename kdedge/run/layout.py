"""The folder of one run: every path is a property."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from kdedge import __version__
from kdedge.errors import MachineError, UsageError
from kdedge.io.atomic import json_text, write_atomic
from kdedge.recipe import Recipe, load_recipe
from kdedge.run.processes import is_main
from kdedge.run.stage import (
    read_stage,
)


@dataclass(frozen=True)
class RunDir:
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
    def student_dirs(self) -> dict[str, Path]:
        """Student name -> folder that holds its student/, baseline/ and bundle/."""
        names = [self.recipe.student_name(s) for s in self.recipe.student]
        return {name: self.folder if len(names) == 1 else self.folder / name for name in names}

    def assistant(self, student: str) -> bool:
        """Whether the recipe gives a student an assistant, whose stage stands beside it."""
        return any(
            one.assistant is not None
            for one in self.recipe.student
            if self.recipe.student_name(one) == student
        )

    def check_exportable(self, students: Iterable[str]) -> None:
        """Raises UsageError for a student whose answer is a sum of two models, which no bundle holds."""
        for name in students:
            if self.assistant(name):
                key = (
                    f"student.{name}.assistant"
                    if len(self.student_dirs) > 1
                    else "student.assistant"
                )
                hint = (
                    f"distill once more with --set {key}= (the student itself is kept), then export"
                )
                raise UsageError(
                    "an assistant is not exported: a bundle holds one student",
                    f"{name} has one",
                    hint,
                )

    def baseline_dir(self, student: str) -> Path | None:
        """The folder of the same student trained on the labels alone, where there is one made like the student that stands now."""
        folder = self.student_dirs[student] / "baseline"
        if not folder.exists():
            return None
        mine, baseline = (
            read_stage(self.student_dirs[student] / name)["inputs"] | {"objective": None}
            for name in ("student", "baseline")
        )
        return folder if mine == baseline else None

    @classmethod
    def create(cls, recipe: Recipe, runs: Path) -> RunDir:
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
            raise MachineError(
                "the run's folder cannot be made",
                f"{self.folder}: {error.strerror}",
                "choose another folder with --runs",
            ) from error
        write_atomic(self.folder / "recipe.toml", self.recipe.to_toml())
        homes = {
            name: os.path.relpath(home, self.folder) for name, home in self.student_dirs.items()
        }
        write_atomic(
            self.folder / "run.json",
            json_text({"kdedge": __version__, "share": self.recipe.share, "students": homes}),
        )

    @classmethod
    def open(cls, path: Path) -> tuple[RunDir, list[str]]:
        """The run that `path` is or lies in, and the names of the students `path` means.

        `runs/x` means all students, `runs/x/bilstm`, `runs/x/bilstm/student` or `.../bundle` the one.
        Raises UsageError where no folder above holds a recipe.toml.
        """
        run = find_run(path)
        if run is None:
            raise UsageError(
                "this is not a run, nor inside one",
                f"{path}",
                "name a folder made by `kdedge distill`, such as runs/quickstart",
            )
        here = path.resolve()
        meant = [
            name for name, home in run.student_dirs.items() if here.is_relative_to(home.resolve())
        ]
        return run, meant or list(run.student_dirs)

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
                    raise MachineError(
                        "this run is in use",
                        f"{holder.parent} is held by {who}",
                        "wait for it, or give this recipe another name",
                    ) from error
                locks.append(lock)
                holder.with_name(".lock-holder").write_text(f"process {os.getpid()}")
            yield
        finally:
            for lock in locks:
                lock.release()


def find_run(path: Path) -> RunDir | None:
    """The nearest run at or above `path`, at most three folders up."""
    here = path.resolve()
    for folder in (here, *list(here.parents)[:3]):
        if (folder / "run.json").is_file() and (folder / "recipe.toml").is_file():
            return RunDir(folder, load_recipe(folder / "recipe.toml"))
    return None
