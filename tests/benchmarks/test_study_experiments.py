"""Compare trainings: what counts as a difference, what the log stores, which parts are left out."""

from __future__ import annotations

import json
import math
from pathlib import Path

import factories
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from kdedge.benchmarks.studies._experiments import ResultLog
from leave_one_out import study, without

from kdedge.evaluation.statistics import PairedDifference, paired_difference
from kdedge.recipe import BiLstmConfig, TinyBertConfig

pytestmark = pytest.mark.slow


def test_a_difference_counts_only_if_seeds_and_texts_agree() -> None:
    """Three differences of mean 0.02 and standard deviation 0.01: t(0.975, 2) = 4.303."""
    scores = np.array([0.81, 0.82, 0.83])
    reference = np.array([0.80, 0.80, 0.80])
    draws = np.linspace(0.0, 0.04, 1001)
    difference = paired_difference(scores, reference, np.tile(draws, (3, 1)), np.zeros((3, 1001)))
    assert difference.seeds == pytest.approx(
        (0.02 - 4.303 * 0.01 / math.sqrt(3), 0.02 + 4.303 * 0.01 / math.sqrt(3)), abs=1e-5
    )
    assert difference.texts == pytest.approx((0.001, 0.039))
    assert difference.verdict == "inconclusive", "other seeds can reverse it"
    assert PairedDifference(0.02, (0.01, 0.03), (0.005, 0.03)).verdict == "better"
    assert PairedDifference(0.02, (0.01, 0.03), (-0.005, 0.03)).verdict == "inconclusive", (
        "other texts can reverse it"
    )
    assert PairedDifference(-0.02, (-0.03, -0.01), (-0.04, -0.001)).verdict == "worse"
    assert PairedDifference(0.02, (0.02, 0.02), (0.01, 0.03)).verdict == "inconclusive", (
        "two seeds with equal differences"
    )
    hits = np.array([[1221, 1232, 1225], [1240, 1251, 1244]]) / 1363
    rounded = paired_difference(*hits, np.zeros((3, 9)), np.ones((3, 9)))
    assert rounded.seeds[0] != rounded.seeds[1]
    assert rounded.verdict == "inconclusive", "three differences that are equal up to rounding"
    assert (
        paired_difference(scores[:1], reference[:1], np.ones((1, 9)), np.zeros((1, 9))).verdict
        == "one seed"
    )


def test_an_incomplete_last_line_is_ignored(tmp_path: Path) -> None:
    log = ResultLog(tmp_path)
    log.add({"key": "a"}, None)
    with log.file.open("a") as stream:
        stream.write('{"key": "b", "sco')
    again = ResultLog(tmp_path)
    again.add({"key": "c"}, None)
    assert set(ResultLog(tmp_path).rows) == {"a", "c"}


def test_each_part_that_a_student_has_is_left_out_once() -> None:
    objective = {
        "hidden_weight": 1.0,
        "attention_weight": 2.0,
        "labels_weight": 0.5,
    }
    student = TinyBertConfig.model_validate(
        {"kind": "tinybert", "start": "shrink", "layers_first": {}, "objective": objective}
    )
    variants = dict(without(student))
    assert list(variants) == [
        "hidden term",
        "attention term",
        "layers",
        "a stage for layers",
        "labels",
        "start (shrink)",
    ]
    for variant in variants.values():
        assert TinyBertConfig.model_validate(variant.model_dump()) == variant
    documents = {variant.model_dump_json() for variant in (student, *variants.values())}
    assert len(documents) == 7
    assert not variants["layers"].objective.reads_layers
    assert variants["attention term"].objective.hidden_weight == 1.0
    assert [name for name, _ in without(BiLstmConfig(kind="bilstm"))] == ["start (teacher)"]


@pytest.mark.slow
def test_parts_are_left_out_over_seeds_and_nothing_is_trained_twice(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    document = factories.write_data_and_teacher(tmp_path, train=64)
    student = factories.tinybert_config(
        start="teacher",
        fit={"epochs": 2.0, "checks": 1, "learning_rate": 5e-3},
        layers_first={"epochs": 1.0},
        objective={"hidden_weight": 1.0},
    )
    (tmp_path / "r.toml").write_text(factories.make_recipe(document, student=student).to_toml())
    options = [
        str(tmp_path / "r.toml"),
        "--runs",
        str(tmp_path / "runs"),
        "--seeds",
        "2",
        "--threads",
        "1",
    ]
    first = CliRunner().invoke(study, options, catch_exceptions=False)
    rows = [
        json.loads(line)
        for line in (tmp_path / "runs" / "r" / "leave-one-out" / "runs.jsonl")
        .read_text()
        .splitlines()
    ]
    names = [
        "all",
        "without layers",
        "without a stage for layers",
        "without start (teacher)",
        "labels alone",
    ]
    assert [(row["cell"], row["seed"]) for row in rows] == [
        (name, seed) for seed in (0, 1) for name in names
    ]
    assert len({row["key"] for row in rows}) == 10 and all("test" in row for row in rows)
    assert [
        line.split(" | ")[0].removeprefix("| ") for line in first.stdout.splitlines()[-5:]
    ] == names
    again = CliRunner().invoke(study, options, catch_exceptions=False)
    assert "10 of 10 trainings are in the log" in again.stderr and again.stdout == first.stdout
    torch.set_num_threads(before)
