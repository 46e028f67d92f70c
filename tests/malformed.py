"""Malformed data sets: files, a recipe, and the error that loading them raises."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from kdedge.data import Task, load_task
from kdedge.errors import DataError, KdedgeError
from kdedge.recipe import DataConfig, TaskConfig

GOOD = "text,label\n" + "".join(f"text {i},{'no' if i % 2 else 'yes'}\n" for i in range(20))
JSONL = "".join(json.dumps({"text": f"text {i}", "label": i % 2}) + "\n" for i in range(20))


@dataclass(frozen=True)
class Case:
    """A data set, a recipe, and the error with a regular expression of its message."""

    name: str
    files: dict[str, str | bytes]
    error: type[KdedgeError]
    says: str
    data: dict[str, object] = field(default_factory=dict)
    task: dict[str, object] = field(default_factory=dict)


def csv_case(
    name: str, rows: str, says: str, error: type[KdedgeError] = DataError, **task: object
) -> Case:
    return Case(name, {"train.csv": GOOD + rows}, error, says, task=task)


def jsonl_case(name: str, rows: str, says: str, **task: object) -> Case:
    return Case(name, {"train.jsonl": JSONL + rows}, DataError, says, task=task)


def load_from(folder: Path, data: dict[str, object], task: dict[str, object]) -> Task:
    asked = {"source": str(folder), "test": 0.1, "validation": 0.1} | data
    return load_task(DataConfig(**asked), TaskConfig(**task), name="test", seed=0)  # type: ignore[arg-type]


def write(folder: Path, files: dict[str, str | bytes]) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(
            content if isinstance(content, bytes) else content.encode("utf-8")
        )
