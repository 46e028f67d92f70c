"""Collect the subjects of a run: teacher and students in torch and as bundles, and baselines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from kdedge.benchmarks import baselines
from kdedge.benchmarks.options import Options
from kdedge.benchmarks.subjects import Subject, bundle_subjects
from kdedge.benchmarks.targets import require_bundle
from kdedge.benchmarks.torch_runner import load_runner

from kdedge.data.task import Task
from kdedge.errors import UsageError
from kdedge.io.atomic import hash_files
from kdedge.nn.text_model import read_measured
from kdedge.run.layout import RunDir
from kdedge.run.stage import WEIGHTS, read_result
from kdedge.runtime import Bundle
from kdedge.teacher.result import TeacherResult


def collect_subjects(
    run: RunDir, students: Sequence[str], task: Task, options: Options
) -> Iterator[Subject]:
    """Yield every subject of a run, the teacher first.

    Subjects are yielded one by one so that the caller can report progress. If `options.teacher`
    is False the teacher does not run, but its stored logits are still the reference.

    Raises:
        UsageError: If a stage or bundle is missing or was made from other data.
    """
    yield from _teacher_subjects(run, task, options)
    for name in students:
        folders = run.students[name]
        yield _torch_subject(name, folders.student, task, "cpu", options)
        yield from _bundle_subjects(name, folders.bundle, folders.student, task, options)
        baseline = folders.current_baseline()
        if baseline:
            yield _untimed_subject(f"{name} baseline", "baseline", baseline, task, (baseline,))
    if baselines.has_words(task):
        yield baselines.tfidf(task)
    yield baselines.constant(task)


def _teacher_subjects(run: RunDir, task: Task, options: Options) -> Iterator[Subject]:
    """Yield the teacher; an ensemble is one subject, followed by its members."""
    if not options.teacher:
        weights = tuple(run.teachers.values()) or (run.teacher,)
        yield _untimed_subject("teacher", "model", run.teacher, task, weights)
        return
    make_subject = _ensemble_subject if run.teachers else _torch_subject
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    for device in devices:
        yield make_subject("teacher", run.teacher, task, device, options)
    for name, folder in run.teachers.items():
        yield _torch_subject(f"teacher {name}", folder, task, "cpu", options)
    bundle = run.teacher_bundle
    if bundle.exists() and not run.teachers:
        yield from _bundle_subjects("teacher", bundle, run.teacher, task, options)


def _torch_subject(name: str, folder: Path, task: Task, device: str, options: Options) -> Subject:
    result, logits = read_measured(folder, task)
    job = _job(folder, result.max_length, device, options.threads)
    return _timed_subject(name, job, logits, [folder])


def _ensemble_subject(
    name: str, folder: Path, task: Task, device: str, options: Options
) -> Subject:
    """Build the subject of an ensemble; its members are in the folders next to `folder`."""
    _, logits = read_measured(folder, task)
    folders = []
    jobs = []
    temperatures = []
    for name_of_member, member in read_result(folder, TeacherResult).teachers.items():
        member_folder = folder.with_name(f"{folder.name}-{name_of_member}")
        folders.append(member_folder)
        jobs.append(_job(member_folder, member.max_length, device, options.threads))
        temperatures.append(member.temperature)
    job = {
        "form": "torch",
        "members": jobs,
        "temperatures": temperatures,
        "device": device,
        "threads": options.threads,
    }
    note = f"{len(jobs)} teachers run in turn; their calibrated logits are averaged"
    return _timed_subject(name, job, logits, folders, (note,))


def _timed_subject(
    name: str,
    job: dict[str, Any],
    logits: np.ndarray,
    weights: Sequence[Path],
    notes: tuple[str, ...] = (),
) -> Subject:
    """Build a subject that torch runs as the job says; `weights` are the folders of its weights."""
    return Subject(
        name,
        "model",
        "torch",
        "fp32",
        f"torch {job['device']}",
        logits=logits,
        runner=load_runner(job),
        job=job,
        bytes=_model_bytes(weights),
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


def _bundle_subjects(
    name: str, folder: Path, source: Path, task: Task, options: Options
) -> Iterator[Subject]:
    """Yield the subjects of a bundle that must be made from the weights in `source`."""
    require_bundle(folder)
    bundle = Bundle.open(folder)
    if bundle.manifest.sources.get("weights") != hash_files(source, WEIGHTS):
        raise UsageError(
            "a bundle was made from other weights than those of its run",
            f"{folder} and {source}",
            "run `kdedge export` on this run again",
        )
    return bundle_subjects(name, bundle, task.test.texts, task.test.pairs, options)


def _untimed_subject(
    name: str,
    kind: Literal["model", "baseline"],
    folder: Path,
    task: Task,
    weights: Sequence[Path],
) -> Subject:
    """Build a subject from stored logits; `weights` are the folders of its weights."""
    _, logits = read_measured(folder, task)
    return Subject(name, kind, "torch", "fp32", logits=logits, bytes=_model_bytes(weights))


def _model_bytes(folders: Sequence[Path]) -> int:
    """Return the bytes of the weights, tokenizers and configurations in these folders."""
    files = [folder / name for folder in folders for name in WEIGHTS]
    return sum(file.stat().st_size for file in files)
