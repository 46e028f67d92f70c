"""The files of a model's folder that decide its logits."""

from __future__ import annotations

from pathlib import Path

from kdedge.io.atomic import hash_files
from kdedge.io.paths import resolve_model_path

CONFIG_AND_TOKENIZER = ("config.json", "tokenizer.json")
WEIGHTS = "model.safetensors"
SHARDS = "model-*.safetensors"
OTHER_TOKENIZER_FILES = (
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)
"""Files of tokenizers that transformers converts when it loads them."""
TOKENIZER_SETTINGS = ("added_tokens.json", "special_tokens_map.json", "tokenizer_config.json")


def model_files(folder: Path) -> tuple[str, ...]:
    """Return the sorted names of the files that decide a model's logits.

    The weights are in one file or in several shards. Without a tokenizer.json, the tokenizer's
    other files count.
    """
    names = {*CONFIG_AND_TOKENIZER, WEIGHTS, *(path.name for path in folder.glob(SHARDS))}
    if not (folder / "tokenizer.json").is_file():
        names.update(name for name in OTHER_TOKENIZER_FILES if (folder / name).is_file())
    return tuple(sorted(names))


def hash_model(folder: Path) -> str:
    """Return the SHA-256 of the files that decide a model's logits; a missing file is empty."""
    return hash_files(folder, model_files(folder))


def tokenizer_hash(name: str | None) -> str | None:
    """Return a hash of a tokenizer's files; None if it is not a folder on this machine.

    Args:
        name: A folder or a `package:` path; or "wordpiece", a hub id or None.
    """
    folder = resolve_model_path(name) if name else None
    if folder is None:
        return None
    names = ("tokenizer.json", *OTHER_TOKENIZER_FILES, *TOKENIZER_SETTINGS)
    return hash_files(folder, names)
