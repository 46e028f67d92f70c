"""The hash of a model changes with every file that decides its logits."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdedge.io.atomic import hash_files
from kdedge.io.model_files import hash_model, tokenizer_hash

USUAL = ("config.json", "model.safetensors", "tokenizer.json")


def write(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_text(name)
    return folder


def test_the_usual_model_has_three_files(tmp_path: Path) -> None:
    folder = write(tmp_path, *USUAL, "vocab.txt", "README.md", "best-7.safetensors")
    assert hash_model(folder) == hash_files(folder, USUAL)


@pytest.mark.parametrize("changed", ["model-00002-of-00002.safetensors", "vocab.txt"])
def test_shards_and_an_old_tokenizer_count(tmp_path: Path, changed: str) -> None:
    shards = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    folder = write(tmp_path, "config.json", *shards, "vocab.txt")
    before = hash_model(folder)
    (folder / changed).write_text("other")
    assert hash_model(folder) != before


@pytest.mark.parametrize("changed", ["tokenizer.json", "special_tokens_map.json"])
def test_the_hash_of_a_tokenizer_changes_with_its_files(tmp_path: Path, changed: str) -> None:
    folder = write(tmp_path, "tokenizer.json")
    before = tokenizer_hash(str(folder))
    (folder / changed).write_text("other")
    assert tokenizer_hash(str(folder)) != before


@pytest.mark.parametrize("name", [None, "wordpiece", "a-user/a-tokenizer"])
def test_a_tokenizer_that_is_not_here_has_no_hash(name: str | None) -> None:
    assert tokenizer_hash(name) is None
