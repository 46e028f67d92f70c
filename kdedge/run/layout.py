"""The folder of one run: every path is a property.

    runs/<name>/recipe.toml  run.json  teacher/  generator/  augment/  transfer/
                general/  tune/  curve/  bench/
                student/  baseline/  layers/  student-int8/  bundle/

With several students, the folders of the last line are in a folder with the student's name.
If the recipe sets `share`, the teacher, texts and general students are in `runs/<share>/`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from kdedge import __version__
from kdedge.errors import MachineError, UsageError
from kdedge.io.atomic import json_text, write_atomic
from kdedge.io.model_files import hash_model
from kdedge.recipe import Recipe, StudentConfig, load_recipe
from kdedge.run.paths import INPUTS_FOLDER, METADATA_FILE, RECIPE_FILE, StudentDir
from kdedge.run.processes import is_main
from kdedge.run.stage import read_stage


@dataclass(frozen=True)
class RunDir:
    """The folder of a run, and its recipe."""

    folder: Path
    recipe: Recipe

    @property
    def shared(self) -> Path:
        """The folder of the run with teacher and texts: this run, or the one in `share`."""
        return self.folder.parent / self.recipe.share if self.recipe.share else self.folder

    @property
    def teacher(self) -> Path:
        return self.shared / "teacher"

    @property
    def teacher_bundle(self) -> Path:
        return self.shared / "teacher-bundle"

    @property
    def inputs(self) -> Path:
        """The objects of a call from Python, as files (see `kdedge.api.inputs`)."""
        return self.folder / INPUTS_FOLDER

    @property
    def generator(self) -> Path:
        return self.shared / "generator"

    @property
    def augment(self) -> Path:
        return self.shared / "augment"

    @property
    def transfer(self) -> Path:
        return self.shared / "transfer"

    @property
    def general(self) -> Path:
        """The general students of this run, or of the one in `share`."""
        return self.shared / "general"

    def general_student(self, student: StudentConfig) -> Path:
        """Return the folder of the general student that `student` starts from."""
        general = student.general_stage
        if general and general.share:
            return self.folder.parent / general.share / "general" / student.key
        return self.general / student.key

    @property
    def tune(self) -> Path:
        return self.folder / "tune"

    @property
    def curve(self) -> Path:
        """The learning curve of the first student."""
        return self.folder / "curve"

    @property
    def bench(self) -> Path:
        """The report on all students."""
        return self.folder / "bench"

    @property
    def recipe_file(self) -> Path:
        return self.folder / RECIPE_FILE

    @property
    def metadata_file(self) -> Path:
        return self.folder / METADATA_FILE

    @property
    def students(self) -> dict[str, StudentDir]:
        """The folders of each student, by its key."""
        keys = [student.key for student in self.recipe.student]
        if len(keys) == 1:
            return {keys[0]: StudentDir(keys[0], self.folder)}
        return {key: StudentDir(key, self.folder / key) for key in keys}

    def require_same_teacher(self, name: str) -> None:
        """Raise UsageError if a student learned from another teacher than the run has now."""
        student = self.students[name].student
        learned_from = read_stage(student).inputs.get("teacher")
        if learned_from != hash_model(self.teacher):
            raise UsageError(
                "a student learned from another teacher than its run has now",
                f"{student} and {self.teacher}",
                "run `kdedge distill --force` with the run's recipe",
            )

    @classmethod
    def create(cls, recipe: Recipe, runs: Path) -> RunDir:
        """Make `runs/<name>/`, or reuse it; its saved recipe stays until `describe` is called.

        Raises MachineError if the folder cannot be made.
        """
        run = cls(runs / recipe.name, recipe)
        if is_main() and not run.recipe_file.exists():
            run.describe()
        return run

    def describe(self, overlaps: Sequence[dict[str, Any]] = (), device: str | None = None) -> None:
        """Write recipe.toml and run.json, which `export` and `bench` need to find the run.

        Call it after the stages of the recipe are made.

        Args:
            overlaps: How many texts the splits share, as JSON values.
            device: What the run was trained on, if it has been trained.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MachineError(
                "the run's folder cannot be made",
                f"{self.folder}: {error.strerror}",
                "choose another folder with --runs",
            ) from error
        write_atomic(self.recipe_file, self.recipe.to_toml())
        students = {}
        for name, student in self.students.items():
            students[name] = os.path.relpath(student.folder, self.folder)
        metadata = {
            "kdedge": __version__,
            "share": self.recipe.share,
            "students": students,
            "overlaps": list(overlaps),
            "device": device,
        }
        write_atomic(self.metadata_file, json_text(metadata))

    @classmethod
    def open(cls, path: Path) -> tuple[RunDir, list[str]]:
        """Return the run at or above `path`, and the students that `path` names.

        `runs/x` names all students; `runs/x/bilstm` and `runs/x/bilstm/bundle` name one.

        Raises UsageError if there is no run at or above the path, or if the path lies in the run
        but in none of its students.
        """
        run = find_run(path)
        if run is None:
            raise UsageError(
                "this is not a run, nor inside one",
                f"{path}",
                "name a folder made by `kdedge distill`, such as runs/quickstart",
            )
        here = path.resolve()
        named = []
        for name, student in run.students.items():
            if here.is_relative_to(student.folder.resolve()):
                named.append(name)
        if not named and here != run.folder:
            raise UsageError(
                "this folder of the run holds no student of its recipe",
                f"{path}; students: {', '.join(run.students)}",
                "name one of them, or the run; after a stopped `kdedge distill`, finish it "
                "first: it saves its recipe at the end",
            )
        return run, named or list(run.students)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the run for this process. Raises MachineError if another process has locked it."""
        with ExitStack() as locks:
            if is_main():
                for folder in dict.fromkeys((self.shared, self.folder)):
                    locks.enter_context(_locked_folder(folder))
            yield


@contextmanager
def _locked_folder(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    holder = folder / ".lock-holder"
    lock = FileLock(str(folder / ".lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        name = holder.read_text() if holder.exists() else "another process"
        raise MachineError(
            "this run is in use",
            f"{folder} is held by {name}",
            "wait for it; a recipe with another name can be distilled at the same time",
        ) from error
    try:
        write_atomic(holder, f"process {os.getpid()}")
        yield
    finally:
        lock.release()


def find_run(path: Path) -> RunDir | None:
    """Return the nearest run at or above `path`, at most three folders up."""
    here = path.resolve()
    for folder in (here, *list(here.parents)[:3]):
        recipe_file = folder / RECIPE_FILE
        if (folder / METADATA_FILE).is_file() and recipe_file.is_file():
            return RunDir(folder, load_recipe(recipe_file))
    return None
