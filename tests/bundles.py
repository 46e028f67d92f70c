"""Tiny real bundles, packed once a session by the same code that `kdedge export` runs, without any training."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import tiny
import torch
from kdedge.export.build import build_bundle
from kdedge.export.options import TEACHER_OPTIONS, ExportOptions
from kdedge.export.pack import ExportInput
from transformers import PreTrainedModel

from kdedge.data.task import Split, Task
from kdedge.nn.labels import label_config
from kdedge.runtime.bundle import LAYOUT, PRECISIONS
from kdedge.runtime.spec import TaskSpec
from kdedge.students.bilstm import BiLstmForSequenceClassification, BiLstmModelConfig

HELD = tuple(name for name in LAYOUT if name not in (PRECISIONS["fp16"], PRECISIONS["portable"]))
"""Files of a bundle as it is exported unless more is asked for."""

LENGTH = 24
"""Tokens that a tiny bundle reads."""


def tiny_bundle(kind: str = "bert", task: str = "single") -> Path:
    """A bundle of a `bert` or `bilstm` for a task of `TASKS`, shared by all tests: copy it before changing anything."""
    return _packed(kind, task)


def copy_of(bundle: Path, folder: Path) -> Path:
    """The bundle once more, in `folder`, for a test to break."""
    return Path(shutil.copytree(bundle, folder / "bundle"))


@cache
def _packed(kind: str, task: str) -> Path:
    return pack(ingredients(kind, TASKS[task]()), TASKS[task](), _home() / f"{kind}-{task}")


@cache
def _home() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="kdedge-bundles-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def pack(
    made: ExportInput, task: Task, folder: Path, choice: ExportOptions = TEACHER_OPTIONS
) -> Path:
    """Graphs, parity gate, scores, golden answers, card and manifest, as `kdedge export` makes them."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    build_bundle(made, task, folder, choice)
    return folder


def ingredients(kind: str, task: Task) -> ExportInput:
    """An untrained student of a task and the figures that training would have left."""
    scores = {
        "metric": task.spec.metric,
        "split_size": len(task.test),
        "teacher": 0.9375,
        "student": 0.875,
    }
    return ExportInput(
        student(kind, task.spec),
        tiny.tokenizer(),
        task.spec,
        LENGTH,
        task.spec.name,
        scores,
        {"model": "a tiny teacher"},
    )


def student(kind: str, spec: TaskSpec) -> PreTrainedModel:
    """Random weights, the same at every call, whose answers differ from text to text."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        if kind == "bilstm":
            config = BiLstmModelConfig(
                vocab_size=200,
                embedding_dim=12,
                hidden_size=7,
                head_size=9,
                pair=spec.pair,
                **label_config(spec),
            )
            recurrent = BiLstmForSequenceClassification(config)
            for parameter in recurrent.parameters():
                torch.nn.init.normal_(parameter, std=0.5)
            return recurrent.eval()
        model = tiny.bert(outputs=spec.outputs, initializer_range=0.3)
        model.config.update(label_config(spec))
        return model.eval()


def multilabel_task() -> Task:
    """Texts whose labels are the things they speak of."""

    def split(count: int, seed: int) -> Split:
        texts, _ = tiny.sentences(count, seed)
        return Split(
            texts,
            None,
            np.array(
                [[thing in text for thing in ("film", "plot", "cast")] for text in texts],
                dtype=np.float32,
            ),
        )

    return Task(
        TaskSpec("tinymulti", "multilabel", ("film", "plot", "cast"), "micro_f1", pair=False),
        split(96, 1),
        split(32, 2),
        split(48, 3),
    )


def regression_task() -> Task:
    """Pairs whose number is how much longer the first text is."""

    def split(count: int, seed: int) -> Split:
        texts, _ = tiny.sentences(count, seed)
        pairs, _ = tiny.sentences(count, seed + 100)
        return Split(
            texts,
            pairs,
            np.array(
                [len(a) - len(b) for a, b in zip(texts, pairs, strict=True)], dtype=np.float32
            ),
        )

    return Task(
        TaskSpec("tinynumber", "regression", ("score",), "spearman", pair=True),
        split(96, 1),
        split(32, 2),
        split(48, 3),
    )


TASKS = {
    "single": tiny.single_task,
    "pair": tiny.pair_task,
    "multilabel": multilabel_task,
    "regression": regression_task,
}
