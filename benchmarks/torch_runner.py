"""Run subjects in torch as they were trained; import only what that needs."""

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

from kdedge.nn.tokenization import load_tokenizer
from kdedge.runtime.text_encoder import CHARACTERS_PER_TOKEN
from kdedge.students.build import MODELS, load_student

Job = Mapping[str, Any]


def load_runner(job: Job) -> Runner:
    """Load the saved classifier that a job names (see `Subject.job`)."""
    return torch_runner(Path(job["folder"]), job["max_length"], job["device"], job["threads"])


def torch_runner(folder: Path, max_length: int, device: str, threads: int) -> Runner:
    """Load a saved classifier on `device`; limit this process to `threads` threads."""
    torch.set_num_threads(threads)
    model = _load(folder).to(device)
    tokenizer = load_tokenizer(folder)
    budget = max_length * CHARACTERS_PER_TOKEN

    def encode(texts: Sequence[str], pairs: Sequence[str] | None) -> Any:
        columns = [[text[:budget] for text in texts]]
        if pairs is not None:
            columns.append([text[:budget] for text in pairs])
        return tokenizer(
            *columns, truncation=True, max_length=max_length, padding=True, return_tensors="pt"
        )

    def run(encoded: Any) -> np.ndarray:
        with torch.inference_mode():
            logits = model(**encoded.to(device)).logits.float()
            # The copy to the CPU waits until a GPU has finished.
            return np.asarray(logits.cpu().numpy())

    return Runner(encode, run)


def _load(folder: Path) -> Any:
    """Load a saved student, or a teacher of any architecture, in evaluation mode."""
    kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    if kind in MODELS:
        return load_student(folder)
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, use_safetensors=True, dtype=torch.float32
    )
    return model.eval()


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Limit torch to `threads` threads, then restore its setting."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
