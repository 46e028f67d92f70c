"""What peers that answer with torch share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bert_files import load_tokens
from peer_protocol import Answer
from transformers import AutoModelForSequenceClassification


def load_model(folder: Path) -> Any:
    """Load a classifier for one thread."""
    torch.set_num_threads(1)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    return model.eval()


def scorer(model: Callable[..., Any], folder: Path) -> Answer:
    tokens = load_tokens(folder)

    def answer(text: str) -> np.ndarray:
        inputs = {name: torch.from_numpy(value) for name, value in tokens(text).items()}
        with torch.inference_mode():
            logits: torch.Tensor = model(**inputs).logits
        return logits[0].numpy()

    return answer
