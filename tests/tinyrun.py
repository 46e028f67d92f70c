"""A whole run that takes seconds: data, a fine-tuned teacher and a recipe that names both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import tiny
import torch

from kdedge.recipe import Recipe


def prepare(folder: Path, *, train: int = 96, layers: int = 2) -> dict[str, Any]:
    """Write data and a teacher of random weights into `folder`; returns a recipe's document with no student in it."""
    torch.manual_seed(0)
    tokenizer = tiny.tokenizer()
    tiny.bert(layers=layers, vocabulary=len(tokenizer)).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    (folder / "data").mkdir()
    for split, count, seed in (("train", train, 1), ("validation", 32, 2), ("test", 48, 3)):
        texts, labels = tiny.sentences(count, seed)
        pq.write_table(
            pa.table({"text": list(texts), "label": labels.tolist()}),
            folder / "data" / f"{split}.parquet",
        )
    return {
        "name": "r",
        "threads": 1,
        "data": {
            "source": str(folder / "data"),
            "validation": "validation",
            "test": "test",
            "overlap": "allow",
        },
        "teacher": {"model": str(folder / "model"), "max_length": 32},
    }


def tinybert(**settings: Any) -> dict[str, Any]:
    """The section of a student that trains in a second."""
    sizes = {
        "kind": "tinybert",
        "start": "scratch",
        "layers": 1,
        "hidden": 24,
        "heads": 2,
        "intermediate": 48,
        "max_length": 32,
        "baseline": False,
    }
    return sizes | {"fit": {"epochs": 1.0, "checks": 1, "learning_rate": 1e-3}} | settings


def recipe(document: dict[str, Any], **settings: Any) -> Recipe:
    return Recipe.model_validate(document | settings)
