"""Who takes part in the bench of a run: teacher and students in torch and as bundles, and the baselines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from kdedge.benchmarks import baselines as peers
from kdedge.benchmarks.subjects import Subject, bundle_subjects
from kdedge.benchmarks.torch_runner import opened

from kdedge.data.task import Task
from kdedge.errors import UsageError
from kdedge.io.atomic import hash_files
from kdedge.nn.text_model import read_measured
from kdedge.run.layout import RunDir
from kdedge.run.stage import WEIGHTS
from kdedge.runtime import Bundle


def collect_subjects(
    run: RunDir,
    students: Sequence[str],
    task: Task,
    *,
    providers: Sequence[str],
    threads: int,
    teacher: bool,
) -> Iterator[Subject]:
    """Every row of the full bench, teacher first; made one by one, so that the caller can tell how far it is.

    teacher: whether the teacher runs; its stored answers are the yardstick in any case.
    Raises UsageError for a stage or bundle that is missing, or was made from other data.
    """
    yield from _teacher_contenders(run, task, providers=providers, threads=threads, runs=teacher)
    for name in students:
        home = run.student_dirs[name]
        yield _torch_contender(name, home / "student", task, "cpu", threads)
        yield from _bundle_contenders(
            name, home / "bundle", home / "student", task, providers, threads
        )
        baseline = run.baseline_dir(name)
        if baseline:
            yield _quality_only(f"{name} baseline", baseline, task)
    if peers.has_words(task):
        yield peers.tfidf(task)
    yield peers.constant(task)


def _teacher_contenders(
    run: RunDir, task: Task, *, providers: Sequence[str], threads: int, runs: bool
) -> Iterator[Subject]:
    """Several teachers are `teacher` together, at the cost of all, and a row each by itself."""
    if not runs:
        yield _quality_only(
            "teacher", run.teacher, task, kind="model", weights=tuple(run.teachers.values())
        )
        return
    contender = _ensemble_contender if run.teachers else _torch_contender
    for device in ("cpu", *(["cuda"] if torch.cuda.is_available() else [])):
        yield contender("teacher", run.teacher, task, device, threads)
    if run.teachers:
        for name, folder in run.teachers.items():
            yield _torch_contender(f"teacher {name}", folder, task, "cpu", threads)
        return
    bundle = run.shared / "teacher-bundle"
    if bundle.exists():
        yield from _bundle_contenders("teacher", bundle, run.teacher, task, providers, threads)


def _torch_contender(name: str, folder: Path, task: Task, device: str, threads: int) -> Subject:
    result, logits = read_measured(folder, task)
    job = _job(folder, result["max_length"], device, threads)
    return Subject(
        name,
        "model",
        "torch",
        "fp32",
        f"torch {device}",
        logits=logits,
        runner=opened(job),
        job=job,
        bytes=_bytes((folder,)),
    )


def _ensemble_contender(name: str, folder: Path, task: Task, device: str, threads: int) -> Subject:
    """folder: the stage of what several teachers say together; each stands beside it."""
    result, logits = read_measured(folder, task)
    places = {member: folder.with_name(f"{folder.name}-{member}") for member in result["teachers"]}
    members = [
        _job(places[member], one["max_length"], device, threads)
        for member, one in result["teachers"].items()
    ]
    job = {
        "form": "torch",
        "members": members,
        "temperatures": [one["temperature"] for one in result["teachers"].values()],
    }
    job |= {"device": device, "threads": threads}
    notes = (
        f"{len(members)} teachers asked one after the other, and the mean of their calibrated logits",
    )
    weights = _bytes(tuple(places.values()))
    return Subject(
        name,
        "model",
        "torch",
        "fp32",
        f"torch {device}",
        logits=logits,
        runner=opened(job),
        job=job,
        bytes=weights,
        notes=notes,
    )


def _job(folder: Path, max_length: int, device: str, threads: int) -> dict[str, Any]:
    return {
        "form": "torch",
        "folder": str(folder.resolve()),
        "max_length": max_length,
        "device": device,
        "threads": threads,
    }


def _bytes(folders: Sequence[Path]) -> int:
    return sum((folder / "model.safetensors").stat().st_size for folder in folders)


def _bundle_contenders(
    name: str, folder: Path, source: Path, task: Task, providers: Sequence[str], threads: int
) -> Iterator[Subject]:
    """source: the stage whose weights the bundle must have been made from."""
    if not folder.exists():
        raise UsageError(
            "a student has not been exported yet",
            f"{folder} is missing",
            "run `kdedge export` on this run first",
        )
    bundle = Bundle.open(folder)
    if bundle.manifest.sources.get("weights") not in (None, hash_files(source, WEIGHTS)):
        raise UsageError(
            "a bundle was made from other weights than those beside it",
            f"{folder} and {source}",
            "run `kdedge export` on this run again",
        )
    return bundle_subjects(
        name, bundle, task.test.texts, task.test.pairs, providers=providers, threads=threads
    )


def _quality_only(
    name: str, folder: Path, task: Task, kind: Any = "baseline", weights: Sequence[Path] = ()
) -> Subject:
    """weights: the folders that hold them, where `folder` does not."""
    _, logits = read_measured(folder, task)
    return Subject(
        name, kind, "torch", "fp32", None, logits=logits, bytes=_bytes(weights or (folder,))
    )
