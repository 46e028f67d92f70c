"""Subjects in torch, as they were trained; imports no more than a program that runs them would."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kdedge.benchmarks.subjects import Runner
from transformers import AutoModelForSequenceClassification

from kdedge.nn.tokenization import CHARACTERS_PER_TOKEN, load_tokenizer
from kdedge.students.build import MODELS, load_student
from kdedge.teacher.temperature import mean_logits

Job = Mapping[str, Any]


def opened(job: Job) -> Runner:
    """What a job names (see Contender.job): a saved classifier, or several that answer together."""
    if "members" in job:
        return together([opened(member) for member in job["members"]], job["temperatures"])
    return torch_runner(Path(job["folder"]), job["max_length"], job["device"], job["threads"])


def together(runners: Sequence[Runner], temperatures: Sequence[float]) -> Runner:
    """Several classifiers asked one after the other: the mean of their calibrated logits, for the sum of their times."""

    def encode(texts: Sequence[str], pairs: Sequence[str] | None) -> list[Any]:
        return [runner.encode(texts, pairs) for runner in runners]

    def run(encoded: list[Any]) -> np.ndarray:
        return mean_logits(
            [runner.run(one) for runner, one in zip(runners, encoded, strict=True)], temperatures
        )

    return Runner(encode, run)


def torch_runner(folder: Path, max_length: int, device: str, threads: int) -> Runner:
    """A saved classifier on `device`, limited to `threads` threads of this process."""
    torch.set_num_threads(threads)
    model = _load(folder).to(device)
    tokenizer = load_tokenizer(folder)
    budget = max_length * CHARACTERS_PER_TOKEN

    def encode(texts: Sequence[str], pairs: Sequence[str] | None) -> Any:
        capped = [
            [text[:budget] for text in column] for column in (texts, pairs) if column is not None
        ]
        return tokenizer(
            *capped, truncation=True, max_length=max_length, padding=True, return_tensors="pt"
        )

    def run(encoded: Any) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(
                model(**encoded.to(device)).logits.float().cpu().numpy()
            )  # the copy waits for a GPU to finish

    return Runner(encode, run)


def _load(folder: Path) -> Any:
    """A saved student, or a teacher of any architecture, in evaluation mode."""
    kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    if kind in MODELS:
        return load_student(folder)
    return AutoModelForSequenceClassification.from_pretrained(
        folder, use_safetensors=True, dtype=torch.float32
    ).eval()


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Limit torch to `threads` and give its setting back afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
