"""Tuning: ranges are read whole or rejected, trials are shared and never lost, and the test split decides nothing."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import optuna
import pytest
import tiny
import tinyrun
import torch
from optuna.trial import FixedTrial, TrialState, create_trial

from kdedge.distillation.pipeline import distill, scores
from kdedge.distillation.student_training import DistillContext
from kdedge.errors import UsageError
from kdedge.evaluation.latency import share_of_time
from kdedge.nn.text_model import TextClassifier
from kdedge.recipe import AugmentConfig, RangeConfig, Recipe, RulesConfig, load_recipe
from kdedge.tuning import study as trials
from kdedge.tuning.run import check, read_trials, tune, write_results
from kdedge.tuning.study import (
    TuningStudy,
    baseline_params,
    count,
    fail_stale_trials,
    pareto_front,
    run_trials,
    suggest,
)

RATE = {"student.fit.learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}}


def recipe(ranges: dict, trials: int = 4, **student) -> Recipe:
    document = {"name": "r", "threads": 1, "data": {"source": "x"}, "teacher": {"model": "y"}}
    return Recipe.model_validate(
        document
        | {"student": tinyrun.tinybert(**student), "tune": {"trials": trials, "ranges": ranges}}
    )


@pytest.mark.parametrize(
    ("ranges", "says"),
    [
        ({"teacher.max_length": [64, 128]}, "only keys of a student"),
        ({"student.layers": [2]}, "at least two choices"),
        ({"student.fit.learning_rate": {"low": 1e-2, "high": 1e-3}}, "is not below high"),
        ({"student.fit.learning_rate": {"low": 0.0, "high": 1e-3, "log": True}}, "above 0"),
        ({}, "at least 1"),
    ],
)
def test_ranges_that_are_none(ranges: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        recipe(ranges)


@pytest.mark.parametrize(
    ("ranges", "says"),
    [
        ({"student.layrs": [1, 2]}, "did you mean layers"),
        ({"student.fit.epochs": [0.5, -1.0]}, "greater than 0"),
    ],
)
def test_ranges_that_do_not_fit_the_student(ranges: dict, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        check(recipe(ranges))
    for word in ("tinybert", "small"):
        typed = {key.replace("student.", f"student.{word}."): wish for key, wish in ranges.items()}
        with pytest.raises(UsageError, match=says):
            check(recipe(typed, **({"name": word} if word == "small" else {})))
    with pytest.raises(UsageError, match="not tuned"):
        check(recipe({"student.kind": ["tinybert", "bilstm"]}))
    with pytest.raises(UsageError, match="auto is yet to find"):
        check(
            recipe(RATE).model_copy(
                update={"augment": AugmentConfig(size="auto", rules=RulesConfig())}
            )
        )
    check(
        recipe(
            RATE
            | {"student.objective.logits": ["mse", "kl"], "student.layers": {"low": 1, "high": 3}}
        )
    )


def test_whole_numbers_stay_whole_and_the_recipe_goes_first() -> None:
    values = {
        "student.layers": 3,
        "student.fit.learning_rate": 1e-3,
        "student.objective.logits": "kl",
    }
    trial = FixedTrial(values)
    assert suggest(trial, "student.layers", RangeConfig(low=1, high=3)) == 3
    assert isinstance(trial.distributions["student.layers"], optuna.distributions.IntDistribution)
    assert (
        suggest(trial, "student.fit.learning_rate", RangeConfig(low=1e-4, high=1e-2, log=True))
        == 1e-3
    )
    assert suggest(trial, "student.objective.logits", ["mse", "kl"]) == "kl"
    assert baseline_params(recipe(RATE | {"student.layers": {"low": 2, "high": 3}})) == {
        "student.fit.learning_rate": 1e-3
    }, "1 layer is out of its range"


def finished(value: float, latency: float) -> optuna.trial.FrozenTrial:
    return create_trial(value=value, user_attrs={"share_of_time": latency})


def test_the_front_holds_what_nothing_beats_in_both() -> None:
    made = [
        finished(0.8, 100),
        finished(0.9, 200),
        finished(0.85, 300),
        finished(0.7, 90),
        finished(0.8, 120),
        create_trial(state=TrialState.PRUNED),
    ]
    assert [(t.value, t.user_attrs["share_of_time"]) for t in pareto_front(made)] == [
        (0.7, 90),
        (0.8, 100),
        (0.9, 200),
    ]


def test_latency_is_a_share_of_all_that_the_reference_runs() -> None:
    tokenizer = tiny.tokenizer()
    small, deep = (
        TextClassifier(
            tiny.bert(layers=n, hidden=96, heads=4, vocabulary=len(tokenizer)).eval(), tokenizer, 32
        )
        for n in (1, 12)
    )
    split = tiny.single_task().validation
    assert 0.8 < share_of_time(split, deep, deep) < 1.25
    assert share_of_time(split, small, deep) < 0.6
    assert share_of_time(split, deep, small) > 1.5
    assert share_of_time(split, deep, deep, deep) < 0.7


class Pretended:
    """Training that takes no time: the score is best at a learning rate of 0.01, told in three checks."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.calls, self.stop_at, self.rates = 0, stop_at, []

    def __call__(self, context, student, folder, *, watch, progress):
        self.calls += 1
        if self.calls == self.stop_at:
            raise KeyboardInterrupt
        assert context.task.test is context.task.validation, "a trial could read the test split"
        rate = student.fit.learning_rate
        self.rates.append(rate)
        score = 1 / (1 + abs(torch.log10(torch.tensor(rate / 0.01)).item()))
        for share in (0.5, 0.8, 1.0):
            watch(share * score)
        tokenizer = tiny.tokenizer()
        model = TextClassifier(tiny.bert(vocabulary=len(tokenizer)).eval(), tokenizer, 32)
        return SimpleNamespace(learn=lambda folder: (model, None, score))


@pytest.fixture
def studio(tmp_path: Path) -> TuningStudy:
    return TuningStudy(recipe(RATE, trials=12), tmp_path, f"sqlite:///{tmp_path}/study.db")


@pytest.fixture
def context(studio: TuningStudy) -> DistillContext:
    """As much of a context as a pretended training reads."""
    tokenizer = tiny.tokenizer()
    return DistillContext(
        studio.recipe,
        None,
        tiny.single_task(),
        TextClassifier(tiny.bert(vocabulary=len(tokenizer)).eval(), tokenizer, 32),
        None,
    )


def test_an_interrupted_study_goes_on_and_finishes_what_was_asked(
    studio: TuningStudy, monkeypatch: pytest.MonkeyPatch, context
) -> None:
    monkeypatch.setattr(trials, "rehearsed", Pretended(stop_at=4))
    with pytest.raises(KeyboardInterrupt):
        run_trials(studio, context)
    study = studio.open()
    before = [t.state for t in study.trials]
    assert before.count(TrialState.FAIL) == 1 and count(study) == 3
    pretended = Pretended()
    monkeypatch.setattr(trials, "rehearsed", pretended)
    run_trials(studio, context)
    assert pretended.calls == 9 and count(studio.open()) == 12
    run_trials(studio, context)
    assert pretended.calls == 9, "a study that is finished runs nothing"
    states = [t.state for t in study.trials]
    assert TrialState.PRUNED in states and states.count(TrialState.COMPLETE) >= 4
    assert len(set(pretended.rates)) == 9, (
        "a study that is resumed must not try the same values again"
    )
    assert (
        abs(torch.log10(torch.tensor(study.best_params["student.fit.learning_rate"] / 0.01)).item())
        < 0.7
    )
    assert not any(
        (studio.folder / f"trial-{t.number:04d}").exists()
        for t in study.trials
        if t.state is TrialState.PRUNED
    )


def test_trials_of_a_dead_process_do_not_count_and_those_of_a_living_one_do(
    studio: TuningStudy,
) -> None:
    study = studio.open()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for process, host in (
        (gone.pid, socket.gethostname()),
        (os.getpid(), socket.gethostname()),
        (gone.pid, "elsewhere"),
    ):
        study.ask().set_user_attr("process", f"{host} {process}")
    assert fail_stale_trials(study) == [0]
    assert [t.state for t in study.trials] == [
        TrialState.FAIL,
        TrialState.RUNNING,
        TrialState.RUNNING,
    ] and count(study) == 2


def test_trials_of_another_recipe_are_not_mixed_in(studio: TuningStudy) -> None:
    study = studio.open()
    replace(studio, recipe=recipe(RATE, trials=99)).open()
    document = json.loads(study.user_attrs["recipe"])
    del document["student"][0]["assistant"]
    study.set_user_attr(
        "recipe", json.dumps(document)
    )  # as it was written before recipes had this key
    studio.open()
    with pytest.raises(UsageError, match="another recipe"):
        replace(studio, recipe=recipe(RATE, heads=3)).open()


def test_results_name_the_best_recipe_and_draw_two_pictures(studio: TuningStudy) -> None:
    study = studio.open()
    with pytest.raises(Exception, match="no trial came to its end"):
        write_results(studio, study)
    for rate, value, latency in ((1e-3, 0.7, 100.0), (1e-2, 0.9, 200.0), (5e-2, 0.8, 300.0)):
        distribution = {
            "student.fit.learning_rate": optuna.distributions.FloatDistribution(
                1e-4, 1e-1, log=True
            )
        }
        study.add_trial(
            create_trial(
                value=value,
                params={"student.fit.learning_rate": rate},
                distributions=distribution,
                user_attrs={"share_of_time": latency},
            )
        )
    write_results(studio, study)
    best = load_recipe(studio.folder / "best.toml")
    assert (best.student[0].fit.learning_rate, best.name, best.share, best.tune) == (
        1e-2,
        "r-best",
        "r",
        None,
    )
    assert [r["score"] for r in read_trials(studio.folder)] == [0.7, 0.9, 0.8]
    pareto, importance = (
        (studio.folder / f"{name}.svg").read_text() for name in ("pareto", "importance")
    )
    assert pareto.count('aria-roledescription="point"') == 3 + 2, (
        "every trial, and again those of the front"
    )
    assert "learning_rate" in importance
    assert all(
        ElementTree.fromstring(picture).tag.endswith("svg") for picture in (pareto, importance)
    )


def test_two_workers_share_the_trials_of_a_real_run(tmp_path: Path) -> None:
    document = tinyrun.prepare(tmp_path, train=32)
    ranges = {
        "student.fit.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
        "student.layers": [1, 2],
    }
    whole = tinyrun.recipe(
        document, student=tinyrun.tinybert(), tune={"trials": 6, "ranges": ranges, "prune": False}
    )
    folder = tune(whole, tmp_path / "runs", workers=2)
    rows = read_trials(folder)
    assert [r["state"] for r in rows].count("complete") == 6
    assert len({r["process"] for r in rows if "process" in r}) == 2, "both workers must have worked"
    assert [path.parent.name for path in (tmp_path / "runs").rglob("logits.npy")] == ["transfer"], (
        "labelled once, for all trials"
    )
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as the workers had
    try:
        run = distill(load_recipe(folder / "best.toml"), tmp_path / "runs")
    finally:
        torch.set_num_threads(before)
    (top,) = [row for row in scores(run) if row["model"] == "tinybert"]
    assert top["validation"] == pytest.approx(
        max(r["score"] for r in rows if r["score"] is not None)
    ), "the best recipe gives the best trial again"
