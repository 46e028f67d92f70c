"""The study of objectives: its grid, and a killed study that ends with the same table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import factories
import objectives
import pytest
import torch
from click.testing import CliRunner
from objectives import GridCell, cells, select, study

from kdedge.errors import UsageError
from kdedge.recipe import ObjectiveConfig

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
STUDIES = str(ROOT / "benchmarks" / "studies")
START = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}, {STUDIES!r}]
import conftest, objectives
objectives.study()
"""
HIDDEN = "hidden cosine, uniform, 1, kl T=1"


def test_one_choice_varies_at_a_time() -> None:
    grid = cells("mse", layers=True)
    assert grid[0] == GridCell("mse") and len(set(grid)) == len(grid) == 7 + 12 + 3 + 2
    assert {cell.logits for cell in grid if cell.layers} == {"mse"}
    centre = objectives.CENTRE
    assert all(
        sum(a != b for a, b in zip((c.layers, c.layer_map, c.weight), centre, strict=True)) <= 1
        for c in grid
        if c.layers
    )
    assert cells("kl T=3", layers=False)[0].name == "logits kl T=3"


def test_every_cell_is_an_objective_that_differs_from_the_others() -> None:
    base = objectives.logits_alone(
        ObjectiveConfig(labels_weight=0.5, hidden_weight=2.0, layer_map="last")
    )
    objectives_of = {cell: cell.objective(base) for cell in cells("mse", layers=True)}
    assert len({objective.model_dump_json() for objective in objectives_of.values()}) == len(
        objectives_of
    )
    assert all(
        objective.labels_weight == 0.5 and objective.logits_weight == 1
        for objective in objectives_of.values()
    )
    terms = "hidden mse & attention scores & embedding mse"
    tinybert = GridCell("mse", terms, "skip", "0.1").objective(base)
    assert (
        tinybert.hidden_weight,
        tinybert.attention_weight,
        tinybert.embedding_weight,
        tinybert.layer_map,
    ) == (0.1, 0.1, 0.1, "skip")
    assert objectives_of[GridCell("kl T=4")] == base.model_copy(
        update={"logits": "kl", "temperature": 4.0}
    )


def test_cells_are_selected_by_the_beginning_of_their_name() -> None:
    grid = cells("mse", layers=True)
    assert {cell.name.split()[0] for cell in select(grid, "attention; embedding")} == {
        "logits",
        "attention",
        "embedding",
    }
    assert [cell.name for cell in select(grid, "hidden mse, last")] == [
        "logits mse",
        "hidden mse, last, 1, mse",
    ]
    with pytest.raises(UsageError, match="hiden"):
        select(grid, "logits;hiden")


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def recipe_file(folder: Path) -> Path:
    document = factories.write_data_and_teacher(folder, train=64)
    file = folder / "r.toml"
    file.write_text(
        factories.make_recipe(
            document,
            student=factories.tinybert_config(
                fit={"epochs": 2.0, "checks": 1, "learning_rate": 5e-3}
            ),
        ).to_toml()
    )
    return file


def test_a_killed_study_goes_on_and_ends_with_the_same_table(
    tmp_path: Path, one_thread: None
) -> None:
    recipe = recipe_file(tmp_path)
    options = ["--only", "hidden cosine", "--seeds", "2", "--threads", "1"]
    whole = CliRunner().invoke(
        study, [str(recipe), "--runs", str(tmp_path / "whole"), *options], catch_exceptions=False
    )

    log = tmp_path / "cut" / "r" / "objectives" / "runs.jsonl"
    command = [sys.executable, "-c", START, str(recipe), "--runs", str(tmp_path / "cut"), *options]
    child = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    until = time.monotonic() + 300
    while (
        not (log.exists() and log.read_text().count("\n") >= 2)
        and child.poll() is None
        and time.monotonic() < until
    ):
        time.sleep(0.002)
    child.kill()
    _, messages = child.communicate()
    finished = log.read_text().rpartition("\n")[0].splitlines()
    assert 2 <= len(finished) < 6, messages

    again = CliRunner().invoke(
        study, [str(recipe), "--runs", str(tmp_path / "cut"), *options], catch_exceptions=False
    )
    assert without_seconds(again.stdout) == without_seconds(whole.stdout)
    assert f"{len(finished)} of 6 trainings are in the log" in again.stderr
    assert log.read_text().splitlines()[: len(finished)] == finished
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(row["cell"], row["seed"]) for row in rows] == [
        (name, seed) for seed in (0, 1) for name in ("logits kl T=1", "baseline", HIDDEN)
    ]
    assert len({row["test"] for row in rows}) > 1, (
        "equal tables prove nothing if all students are equal"
    )


@pytest.mark.slow
def test_winners_train_on_all_texts_and_failed_cells_show_why(
    tmp_path: Path, one_thread: None
) -> None:
    """A student of one head cannot match the teacher's two head by head."""
    options = [
        "--seeds",
        "1",
        "--texts",
        "32",
        "--winners",
        "1",
        "--threads",
        "1",
        "--set",
        "student.heads=1",
        "--only",
        "hidden cosine; attention scores",
    ]
    done = CliRunner().invoke(
        study,
        [str(recipe_file(tmp_path)), "--runs", str(tmp_path / "runs"), *options],
        catch_exceptions=False,
    )
    part, _, whole = done.stdout.partition("## 64 texts")
    assert "## 32 texts" in part and "attention scores can be matched only head by head" in part
    assert "| hidden cosine |" in whole and "baseline" in whole and "attention scores" not in whole
    rows = [
        json.loads(line)
        for line in (tmp_path / "runs" / "r" / "objectives" / "runs.jsonl").read_text().splitlines()
    ]
    assert [row["texts"] for row in rows] == [32] * 4 + [64] * 3


def without_seconds(text: str) -> list[str]:
    return [
        line.rpartition(" | ")[0] if line.startswith("|") else line
        for line in text.splitlines()
        if "trainings" not in line
    ]
