"""Collect the subjects of a run: teacher and students in torch and as bundles; baselines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import torch
from kdedge.benchmarks import baselines
from kdedge.benchmarks.options import Options
from kdedge.benchmarks.sources import require_bundle
from kdedge.benchmarks.subjects import Subject, bundle_subjects
from kdedge.benchmarks.torch_runner import load_runner

from kdedge.data.task import Task
from kdedge.errors import UsageError
from kdedge.io.model_files import hash_model, model_files
from kdedge.nn.text_model import read_measured
from kdedge.run.layout import RunDir
from kdedge.runtime import Bundle


def collect_subjects(
    run: RunDir, students: Sequence[str], task: Task, options: Options
) -> Iterator[Subject]:
    """Yield every subject of a run, the teacher first.

    Subjects are yielded one by one so that the caller can report progress. If `options.teacher`
    is False the teacher does not run, but its stored logits are still the reference.

    Raises:
        UsageError: If a stage or bundle is missing, or belongs to other data or weights.
    """
    yield from _teacher_subjects(run, task, options)
    for name in students:
        folders = run.students[name]
        run.require_same_teacher(name)
        yield _torch_subject(name, folders.student, task, "cpu", options)
        yield from _bundle_subjects(name, folders.bundle, folders.student, task, options)
        baseline = folders.current_baseline()
        if baseline:
            yield _untimed_subject(f"{name} baseline", "baseline", baseline, task)
    if baselines.has_words(task):
        yield baselines.tfidf(task)
    yield baselines.constant(task)


def _teacher_subjects(run: RunDir, task: Task, options: Options) -> Iterator[Subject]:
    """Yield the teacher in torch, and its bundle if there is one."""
    if not options.teacher:
        yield _untimed_subject("teacher", "model", run.teacher, task)
        return
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    for device in devices:
        yield _torch_subject("teacher", run.teacher, task, device, options)
    bundle = run.teacher_bundle
    if bundle.exists():
        yield from _bundle_subjects("teacher", bundle, run.teacher, task, options)


def _torch_subject(name: str, folder: Path, task: Task, device: str, options: Options) -> Subject:
    """Build the subject of a model that its stage saved in `folder`."""
    result, logits = read_measured(folder, task)
    job = {
        "form": "torch",
        "folder": str(folder.resolve()),
        "max_length": result.max_length,
        "device": device,
        "threads": options.threads,
    }
    return Subject(
        name,
        "model",
        "torch",
        "fp32",
        f"torch {device}",
        logits=logits,
        runner=load_runner(job),
        job=job,
        bytes=_model_bytes(folder),
    )


def _bundle_subjects(
    name: str, folder: Path, source: Path, task: Task, options: Options
) -> Iterator[Subject]:
    """Yield the subjects of a bundle. Raises UsageError unless `source` has its weights."""
    require_bundle(folder)
    bundle = Bundle.open(folder)
    if bundle.manifest.sources.get("weights") != hash_model(source):
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
) -> Subject:
    """Build a subject from the logits that its stage saved in `folder`."""
    _, logits = read_measured(folder, task)
    return Subject(name, kind, "torch", "fp32", logits=logits, bytes=_model_bytes(folder))


def _model_bytes(folder: Path) -> int:
    """Return the bytes of the weights, tokenizer and configuration of a model."""
    files = [folder / name for name in model_files(folder)]
    return sum(file.stat().st_size for file in files if file.is_file())
