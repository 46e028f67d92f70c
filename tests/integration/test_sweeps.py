"""Full disks and kills at many points of a run: what is finished stays, and the rest resumes.

The normal suite has a few points of each; `make test-soak` has all.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import factories
import pytest
from kdedge_process import fork_kdedge

from kdedge.run.stage import verify_stage
from kdedge.runtime import Bundle
from kdedge.tuning.run import read_trials

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1750),
    pytest.mark.skipif(os.name != "posix", reason="needs signals and mounts of Unix"),
]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe with augmentation, a student, and ranges to tune."""
    folder = tmp_path_factory.mktemp("recipe")
    document: dict[str, Any] = factories.write_data_and_teacher(folder)
    student = {"kind": "bilstm", "hidden": 8, "head": 8, "max_length": 32, "baseline": False}
    fit = {"epochs": 4, "checks": 2, "batch_size": 8}
    made = factories.make_recipe(
        document,
        student=[student | {"fit": fit, "quantize": factories.QUICK_QAT}],
        augment={"rules": {}, "size": 2.0, "shard_size": 32},
        tune={"trials": 3, "ranges": {"student.fit.learning_rate": [1e-3, 1e-2]}},
    )
    path = folder / "recipe.toml"
    path.write_text(made.to_toml())
    return path


def arguments(command: str, recipe: Path, runs: Path) -> list[str]:
    """Return the command line of a command on the recipe's run."""
    if command in ("export", "bench"):
        options = ["--seconds", "0.2", "--no-teacher"] if command == "bench" else []
        return [command, str(runs / "r"), *options]
    if command == "check":
        return [command, str(recipe)]
    return [command, str(recipe), "--runs", str(runs)]


def start(command: str, recipe: Path, runs: Path) -> ForkServerProcess:
    """Start a command; it prints into the file `output_of(recipe)`."""
    line = arguments(command, recipe, runs)
    return fork_kdedge(*line, folder=recipe.parent, output=output_of(recipe))


def output_of(recipe: Path) -> Path:
    return recipe.with_name("output.txt")


def run(command: str, recipe: Path, runs: Path) -> tuple[int | None, str]:
    """Run a command to its end; return exit code and output."""
    process = start(command, recipe, runs)
    process.join()
    return process.exitcode, output_of(recipe).read_text(errors="replace")


def fingerprint(command: str, runs: Path) -> dict[str, str]:
    """Return what a command made: hashes of its files, or what does not depend on time."""
    run = runs / "r"
    if command == "tune":
        trials = read_trials(run / "tune")
        complete = [trial for trial in trials if trial["state"] == "complete"]
        assert (run / "tune" / "best.toml").exists()
        return {"complete trials": str(len(complete))}
    if command == "bench":
        rows = json.loads((run / "bench-no-teacher" / "report.json").read_text())["rows"]
        return {"rows": str([(row["subject"], row["form"], row["precision"]) for row in rows])}
    names = {
        "augment": ["augment/texts.arrow"],
        "distill": [
            "teacher/model.safetensors",
            "transfer/logits.npy",
            "student/model.safetensors",
        ],
        "export": ["student-int8/model.safetensors", "bundle/onnx/model_quantized.onnx"],
    }
    return {name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in names[command]}


def assert_finished_work_is_intact(runs: Path) -> None:
    """Every finished stage is as it was written, and every bundle is whole."""
    for path in runs.rglob("stage.json"):
        if not any(parent.suffix in (".part", ".old") for parent in path.parents):
            verify_stage(path.parent)
    for path in runs.rglob("kdedge.json"):
        if path.parent.name == "bundle":
            Bundle.open(path.parent).verify_files()


# Kills

OUTPUTS = {
    "augment": [""],
    "distill": [""],
    "tune": ["tune"],
    "export": ["student-int8", "bundle", "teacher-bundle"],
    "bench": ["bench-no-teacher"],
}
"""Folders of a run that a command makes; "" is the run itself."""

COMMANDS = ("augment", "distill", "tune", "export", "bench")


class Undisturbed:
    """A run without interruption, whose commands run when a test first asks for them."""

    def __init__(self, recipe: Path) -> None:
        self.recipe = recipe
        self.runs = recipe.parent / "whole"
        self.seconds: dict[str, float] = {}

    def up_to(self, last: str) -> tuple[Path, float]:
        """Return the runs folder after the command `last`, and the seconds it took."""
        if not self.seconds:
            run("check", self.recipe, self.runs)  # The first process waits until torch is imported.
        before = ("distill", "export") if last == "bench" else ("distill",)
        for command in (*before, last):
            if command not in self.seconds:
                self._run(command)
        return self.runs, self.seconds[last]

    def _run(self, command: str) -> None:
        # Augmentation is measured in a folder of its own: `distill` makes all stages.
        runs = self.recipe.parent / "augmented" if command == "augment" else self.runs
        begun = time.monotonic()
        code, output = run(command, self.recipe, runs)
        assert code == 0, output[-3000:]
        self.seconds[command] = time.monotonic() - begun


@pytest.fixture(scope="module")
def undisturbed(recipe: Path) -> Undisturbed:
    return Undisturbed(recipe)


def kill_at(seconds: float, command: str, recipe: Path, runs: Path) -> bool:
    """Start a command and kill it after some seconds; return whether it still ran."""
    process = start(command, recipe, runs)
    process.join(seconds)
    if process.exitcode is None:
        os.killpg(process.pid or 0, signal.SIGKILL)
        process.join()
        return True
    assert process.exitcode == 0, output_of(recipe).read_text()
    return False


@pytest.mark.parametrize(
    ("command", "kills"),
    [
        ("distill", 1),
        *(pytest.param(command, 10, marks=pytest.mark.soak) for command in COMMANDS),
    ],
)
def test_a_killed_command_resumes_to_the_same_result(
    command: str, kills: int, recipe: Path, undisturbed: Undisturbed
) -> None:
    whole, seconds = undisturbed.up_to(command)
    runs = recipe.parent / f"killed-{command}-{kills}"
    shutil.copytree(whole, runs)

    def start_again() -> None:
        for name in OUTPUTS[command]:
            shutil.rmtree(runs / "r" / name, ignore_errors=True)

    start_again()
    chance = random.Random(command)
    killed = 0
    finished = 0
    while killed < kills:
        if kill_at(chance.uniform(0.3, 1.0) * seconds, command, recipe, runs):
            killed += 1
            assert_finished_work_is_intact(runs)
        else:
            finished += 1
            start_again()
    code, output = run(command, recipe, runs)
    assert code == 0, output[-3000:]
    sys.stdout.write(f"{command}: {killed} kills, {finished} attempts ended before the kill\n")
    assert fingerprint(command, runs) == fingerprint(command, whole)
    assert not list((runs / "r").glob("*.part"))


# Full disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[tuple[Path, Callable[[int], None]]]:
    """A folder on a disk of its own, and a function that sets the size of this disk in bytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "kdedge-test", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a file system is not permitted here")

    def resize(size: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)

    yield disk, resize
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize("points", [2, pytest.param(25, marks=pytest.mark.soak)])
def test_a_full_disk_is_an_error_and_the_run_continues_once_there_is_space(
    points: int,
    recipe: Path,
    undisturbed: Undisturbed,
    small_disk: tuple[Path, Callable[[int], None]],
) -> None:
    """The disk grows by equal steps, so that it is full at another write each time."""
    whole, _ = undisturbed.up_to("bench")
    disk, resize = small_disk
    runs = disk / "runs"
    used = sum(path.stat().st_size for path in (whole / "r").rglob("*") if path.is_file())
    step = used // points
    size = step
    full = 0
    for command in ("distill", "export", "bench"):
        while True:
            resize(size)
            code, output = run(command, recipe, runs)
            if code == 0:
                break
            full += 1
            assert code == 4 and "Traceback" not in output, output[-3000:]
            assert "full" in output or "No space left" in output, output[-3000:]
            assert str(disk) in output, "the message names no path"
            assert_finished_work_is_intact(runs)
            size += step
            assert size < 20 * used
    sys.stdout.write(f"the disk was full {full} times\n")
    assert full >= points // 2
    for command in ("distill", "export", "bench"):
        assert fingerprint(command, runs) == fingerprint(command, whole)


class CountedWrites:
    """Runs commands that may write a number of times below a folder before the disk is full."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        self.library = scratch / "full_disk.so"
        source = Path(__file__).with_name("full_disk.c")
        compiler = ["gcc", "-shared", "-fPIC", "-o", str(self.library), str(source), "-ldl"]
        if shutil.which("gcc") is None or sys.platform != "linux":
            pytest.skip("needs gcc on Linux")
        subprocess.run(compiler, check=True)
        self.left = scratch / "left"
        self.environment = os.environ | {
            "LD_PRELOAD": str(self.library),
            "FULL_DISK_FOLDER": str(folder),
            "FULL_DISK_LEFT": str(self.left),
        }

    def run(self, words: list[str], writes: int) -> tuple[int, str, int]:
        """Return exit code, output, and the number of writes that were tried."""
        self.left.write_bytes(writes.to_bytes(8, sys.byteorder, signed=True))
        done = subprocess.run(
            [sys.executable, "-m", "kdedge", *words],
            env=self.environment,
            capture_output=True,
            text=True,
        )
        left = int.from_bytes(self.left.read_bytes(), sys.byteorder, signed=True)
        return done.returncode, done.stdout + done.stderr, writes - left


@pytest.mark.parametrize("step", [200, pytest.param(10, marks=pytest.mark.soak)])
def test_any_write_can_be_the_one_that_finds_the_disk_full(
    step: int, recipe: Path, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    """Each command runs with space for 0, `step`, 2 `step`, ... writes, until that is enough."""
    whole, _ = undisturbed.up_to("bench")
    runs = tmp_path / "runs"
    runs.mkdir()
    disk = CountedWrites(runs, tmp_path)
    for command in ("distill", "export", "bench"):
        before = tmp_path / f"before-{command}"
        shutil.copytree(runs, before)
        writes = 0
        while True:
            shutil.rmtree(runs)
            shutil.copytree(before, runs)
            code, output, tried = disk.run(arguments(command, recipe, runs), writes)
            if code == 0:
                break
            assert tried > writes, output[-3000:]
            assert code == 4 and "Traceback" not in output, (writes, output[-3000:])
            assert "full" in output or "No space left" in output, (writes, output[-3000:])
            assert str(runs) in output, (writes, "the message names no path")
            assert_finished_work_is_intact(runs)
            writes += step
        sys.stdout.write(f"{command}: {tried} writes, full {writes // step} times\n")
        assert writes >= tried > writes - step
        assert fingerprint(command, runs) == fingerprint(command, whole)
