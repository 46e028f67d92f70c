"""A run's own subjects, which need torch: teacher and students as they were trained, beside their bundles and baselines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification

from kdedge.data.task import Task
from kdedge.encode import CHARACTERS_PER_TOKEN, load_tokenizer
from kdedge.errors import UsageError
from kdedge.rundir import Run, read_stage
from kdedge.students import MODELS, load_student

from . import peers
from .subjects import Contender, Runner, bundle_contenders


def contenders(run: Run, students: Sequence[str], task: Task, *, providers: Sequence[str], threads: int, teacher: bool) -> Iterator[Contender]:
    """Every row of the full bench, teacher first; made one by one, so that the caller can tell how far it is.

    teacher: whether the teacher runs; its stored answers are the yardstick in any case.
    Raises UsageError for a stage or bundle that is missing, or was made from other data.
    """
    yield from _teacher_contenders(run, task, providers=providers, threads=threads, runs=teacher)
    for name in students:
        home = run.homes[name]
        yield _torch_contender(name, home / "student", task, "cpu", threads)
        yield from _bundle_contenders(name, home / "bundle", task, providers, threads)
        if (home / "undistilled").exists():
            yield _quality_only(f"{name} undistilled", home / "undistilled", task)
    yield peers.tfidf(task)
    yield peers.constant(task)


def torch_runner(folder: Path, max_length: int, device: str, threads: int) -> Runner:
    """A saved classifier on `device`, limited to `threads` threads of this process."""
    torch.set_num_threads(threads)
    model = _load(folder).to(device)
    tokenizer = load_tokenizer(folder)
    budget = max_length * CHARACTERS_PER_TOKEN

    def encode(texts: Sequence[str], pairs: Sequence[str] | None) -> Any:
        capped = [[text[:budget] for text in column] for column in (texts, pairs) if column is not None]
        return tokenizer(*capped, truncation=True, max_length=max_length, padding=True, return_tensors="pt")

    def run(encoded: Any) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(model(**encoded.to(device)).logits.float().cpu().numpy())  # the copy waits for a GPU to finish

    return Runner(encode, run)


def _load(folder: Path) -> Any:
    """A saved student, or a teacher of any architecture, in evaluation mode."""
    kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    if kind in MODELS:
        return load_student(folder)
    return AutoModelForSequenceClassification.from_pretrained(folder, use_safetensors=True, dtype=torch.float32).eval()


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Limit torch to `threads` and give its setting back afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _teacher_contenders(run: Run, task: Task, *, providers: Sequence[str], threads: int, runs: bool) -> Iterator[Contender]:
    if not runs:
        yield _quality_only("teacher", run.teacher, task, kind="model")
        return
    yield _torch_contender("teacher", run.teacher, task, "cpu", threads)
    if torch.cuda.is_available():
        yield _torch_contender("teacher", run.teacher, task, "cuda", threads)
    bundle = run.shared / "teacher-bundle"
    if bundle.exists():
        yield from _bundle_contenders("teacher", bundle, task, providers, threads)


def _torch_contender(name: str, folder: Path, task: Task, device: str, threads: int) -> Contender:
    result, logits = _stored(folder, task)
    job = {"form": "torch", "folder": str(folder.resolve()), "max_length": result["max_length"], "device": device, "threads": threads}
    return Contender(
        name,
        "model",
        "torch",
        "fp32",
        f"torch {device}",
        logits=logits,
        runner=torch_runner(folder, result["max_length"], device, threads),
        job=job,
        bytes=(folder / "model.safetensors").stat().st_size,
    )


def _bundle_contenders(name: str, folder: Path, task: Task, providers: Sequence[str], threads: int) -> list[Contender]:
    if not folder.exists():
        raise UsageError("a student has not been exported yet", f"{folder} is missing", "run `kdedge export` on this run first")
    return bundle_contenders(name, folder, task.report.texts, task.report.pairs, providers=providers, threads=threads)


def _quality_only(name: str, folder: Path, task: Task, kind: Any = "baseline") -> Contender:
    _, logits = _stored(folder, task)
    return Contender(name, kind, "torch", "fp32", None, logits=logits, bytes=(folder / "model.safetensors").stat().st_size)


def _stored(folder: Path, task: Task) -> tuple[dict[str, Any], np.ndarray]:
    """A stage's result and its logits (N, C) on the reported split."""
    result = read_stage(folder)["result"]
    logits = np.load(folder / "report_logits.npy", allow_pickle=False)
    if logits.shape != (len(task.report), task.spec.outputs):
        raise UsageError(
            "the data has changed since this stage was measured",
            f"{folder.name} answered {logits.shape[0]} texts of {logits.shape[1]} outputs, the recipe now gives {len(task.report)} of {task.spec.outputs}",
            "run `kdedge distill --force` on the recipe",
        )
    return result, logits
