"""What peers that read a BERT share: its tokens and its files. Needs tokenizers and numpy."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from peer_protocol import PeerTask
from tokenizers import Tokenizer

FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


def copy_tokenizer(task: PeerTask, folder: Path) -> None:
    """Write the teacher's tokenizer, which cuts texts at the task's length."""
    tokenizer = Tokenizer.from_file(str(Path(task.settings["teacher"]) / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(task.settings["max_length"])
    tokenizer.save(str(folder / "tokenizer.json"))


def copy_model(task: PeerTask, folder: Path) -> None:
    """Copy the files of the teacher that a prediction needs."""
    for name in FILES:
        shutil.copy(Path(task.settings["teacher"]) / name, folder)
    copy_tokenizer(task, folder)


def load_tokens(folder: Path) -> Callable[[str], dict[str, np.ndarray]]:
    """Return a function from a text to the inputs of a BERT, each (1, T) int64."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def tokens(text: str) -> dict[str, np.ndarray]:
        encoded = tokenizer.encode(text)
        return {
            "input_ids": np.array([encoded.ids], dtype=np.int64),
            "attention_mask": np.array([encoded.attention_mask], dtype=np.int64),
            "token_type_ids": np.array([encoded.type_ids], dtype=np.int64),
        }

    return tokens
