"""Tuning: search spaces, trials that several workers share, results."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import factories
import optuna
import pytest
import torch
from kdedge_process import kdedge_command
from optuna.trial import FixedTrial, TrialState, create_trial

from kdedge.distillation.pipeline import distill
from kdedge.distillation.scores import scores
from kdedge.distillation.student_training import DistillContext, TrainedStudent
from kdedge.errors import Interrupted, UsageError
from kdedge.evaluation.latency import share_of_time
from kdedge.nn.text_model import TextClassifier
from kdedge.nn.training_callbacks import SaveCallback
from kdedge.recipe import AugmentConfig, RangeConfig, Recipe, RulesConfig, load_recipe
from kdedge.run.layout import RunDir
from kdedge.tuning import study as tuning_study
from kdedge.tuning import trial_process, workers
from kdedge.tuning.run import check_recipe, read_trials, tune, write_results
from kdedge.tuning.study import (
    TuningStudy,
    baseline_params,
    count_trials,
    fail_stale_trials,
    run_trials,
    suggest,
)
from kdedge.tuning.trial_process import this_process

pytestmark = pytest.mark.slow

RATE = {"student.fit.learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}}


def recipe(ranges: dict, trials: int = 4, **student) -> Recipe:
    document = {"name": "r", "threads": 1, "data": {"source": "x"}, "teacher": {"model": "y"}}
    return Recipe.model_validate(
        document
        | {
            "student": factories.tinybert_config(**student),
            "tune": {"trials": trials, "ranges": ranges},
        }
    )


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ({"teacher.max_length": [64, 128]}, "only keys of a student"),
        ({"student.layers": [2]}, "at least two choices"),
        ({"student.fit.learning_rate": {"low": 1e-2, "high": 1e-3}}, "is not below high"),
        ({"student.fit.learning_rate": {"low": 0.0, "high": 1e-3, "log": True}}, "above 0"),
        ({}, "at least 1"),
    ],
)
def test_invalid_search_spaces(ranges: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe(ranges)


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ({"student.layrs": [1, 2]}, "did you mean layers"),
        ({"student.fit.epochs": [0.5, -1.0]}, "greater than 0"),
        ({"student.fitt.epochs": [1.0, 2.0]}, "no table fitt"),
        ({"student.layers_first.epochs": [1.0, 2.0]}, "no table layers_first"),
        ({"student.hidden.size": [1, 2]}, "no table hidden"),
    ],
)
def test_search_spaces_that_do_not_fit_the_student(ranges: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_recipe(recipe(ranges))
    for word in ("tinybert", "small"):
        named = {
            key.replace("student.", f"student.{word}."): space for key, space in ranges.items()
        }
        with pytest.raises(UsageError, match=message):
            check_recipe(recipe(named, **({"name": word} if word == "small" else {})))
    with pytest.raises(UsageError, match="cannot be tuned"):
        check_recipe(recipe({"student.kind": ["tinybert", "bilstm"]}))
    with pytest.raises(UsageError, match="number of texts must be fixed"):
        check_recipe(
            recipe(RATE).model_copy(
                update={"augment": AugmentConfig(size="auto", rules=RulesConfig())}
            )
        )
    check_recipe(
        recipe(
            RATE
            | {"student.objective.logits": ["mse", "kl"], "student.layers": {"low": 1, "high": 3}}
        )
    )


@pytest.mark.parametrize(
    "ranges, hint",
    [
        ({"student.quantize.steps": [0, 300]}, "kdedge export reads it"),
        ({"student.tinybert.quantize.learning_rate": {"low": 1e-5, "high": 1e-4}}, "kdedge export"),
        ({"student.baseline": [True, False]}, "kdedge distill reads it"),
        ({"student.objective.hidden": ["mse", "cka"]}, "set objective.hidden_weight"),
        ({"student.objective.layer_map": ["first", "last"]}, "set objective.hidden_weight"),
        ({"student.objective.temperature": [1.0, 2.0]}, "set objective.logits to kl"),
    ],
)
def test_keys_that_no_trial_reads_are_refused(ranges: dict, hint: str) -> None:
    with pytest.raises(UsageError, match="no trial depends on this key") as caught:
        check_recipe(recipe(RATE | ranges, objective={"logits": "mse"}))
    assert next(iter(ranges)) in caught.value.detail and hint in caught.value.hint


def test_keys_of_a_loss_are_read_if_a_trial_may_have_it() -> None:
    ranges = {"student.objective.attention": ["kl", "minilm"]}
    check_recipe(recipe(ranges, objective={"attention_weight": 0.5}))
    check_recipe(recipe(ranges | {"student.objective.attention_weight": [0.0, 1.0]}))
    with pytest.raises(UsageError, match="its loss has the weight 0"):
        check_recipe(recipe(ranges))
    ranges = {"student.objective.temperature": {"low": 1.0, "high": 4.0}}
    check_recipe(recipe(ranges, objective={"logits": "kl"}))
    check_recipe(recipe(ranges | {"student.objective.logits": ["mse", "kl"]}))


def test_integers_stay_integers_and_the_first_trial_has_the_recipes_values() -> None:
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
    }, "1 layer is not in the range"


def test_latency_is_relative_to_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that only models advance, by one second per layer."""
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    def model(layers: int) -> TextClassifier:
        def advance(*_: object) -> None:
            clock[0] += layers

        tokenizer = factories.tokenizer()
        bert = factories.bert(layers=layers, vocabulary=len(tokenizer)).eval()
        bert.register_forward_pre_hook(advance)
        return TextClassifier(bert, tokenizer, 32)

    small, deep = model(1), model(4)
    split = factories.single_task().validation
    assert share_of_time(split, deep, deep) == 1
    assert share_of_time(split, small, deep) == 1 / 4
    assert share_of_time(split, deep, small) == 4


class FakeTraining:
    """Training that takes no time: the score is best at a learning rate of 0.01."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.calls, self.stop_at, self.rates = 0, stop_at, []

    def __call__(self, context, student, folder, *, on_eval, progress):
        self.calls += 1
        assert not folder.exists(), "a trial would continue the weights of another one"
        (folder / "student").mkdir(parents=True)
        if self.calls == self.stop_at:
            raise KeyboardInterrupt
        assert context.task.test is context.task.validation, "a trial can read the test split"
        rate = student.fit.learning_rate
        self.rates.append(rate)
        score = 1 / (1 + abs(torch.log10(torch.tensor(rate / 0.01)).item()))
        for share in (0.5, 0.8, 1.0):
            on_eval(share * score)
        tokenizer = factories.tokenizer()
        model = TextClassifier(factories.bert(vocabulary=len(tokenizer)).eval(), tokenizer, 32)
        return SimpleNamespace(learn=lambda folder: TrainedStudent(model, score))


@pytest.fixture
def tuning(tmp_path: Path) -> TuningStudy:
    return TuningStudy(
        recipe(RATE, trials=12), tmp_path, f"sqlite:///{tmp_path}/study.db", {"data": "a"}
    )


@pytest.fixture
def context(tuning: TuningStudy) -> DistillContext:
    """The part of a context that a fake training reads."""
    tokenizer = factories.tokenizer()
    return DistillContext(
        tuning.recipe,
        None,
        factories.single_task(),
        TextClassifier(factories.bert(vocabulary=len(tokenizer)).eval(), tokenizer, 32),
        None,
    )


def test_an_interrupted_study_resumes_and_runs_the_remaining_trials(
    tuning: TuningStudy, monkeypatch: pytest.MonkeyPatch, context
) -> None:
    monkeypatch.setattr(tuning_study, "training_without_stage", FakeTraining(stop_at=4))
    with pytest.raises(KeyboardInterrupt):
        run_trials(tuning, context)
    study = tuning.open()
    before = [t.state for t in study.trials]
    assert before.count(TrialState.FAIL) == 1 and count_trials(study) == 3
    fake = FakeTraining()
    monkeypatch.setattr(tuning_study, "training_without_stage", fake)
    run_trials(tuning, context)
    assert fake.calls == 9 and count_trials(tuning.open()) == 12
    run_trials(tuning, context)
    assert fake.calls == 9, "a finished study runs no trial"
    states = [t.state for t in study.trials]
    assert TrialState.PRUNED in states and states.count(TrialState.COMPLETE) >= 4
    assert len(set(fake.rates)) == 9, "a resumed study must not try the same values again"
    assert (
        abs(torch.log10(torch.tensor(study.best_params["student.fit.learning_rate"] / 0.01)).item())
        < 0.7
    )
    assert not any(
        (tuning.folder / f"trial-{t.number:04d}").exists()
        for t in study.trials
        if t.state is TrialState.PRUNED
    )


def test_the_recipes_own_values_are_tried_once_also_late(
    tuning: TuningStudy, monkeypatch: pytest.MonkeyPatch, context
) -> None:
    """After a stop in their trial, or if another worker has begun before."""
    own = 1e-3
    monkeypatch.setattr(tuning_study, "training_without_stage", FakeTraining(stop_at=1))
    with pytest.raises(KeyboardInterrupt):
        run_trials(tuning, context)
    fake = FakeTraining()
    monkeypatch.setattr(tuning_study, "training_without_stage", fake)
    run_trials(replace(tuning, recipe=recipe(RATE, trials=2), worker=1), context)
    assert own not in fake.rates
    run_trials(tuning, context)
    assert fake.rates.index(own) == 2 and fake.rates.count(own) == 1


def test_a_range_of_whole_numbers_holds_only_whole_values() -> None:
    ranges = {"student.fit.epochs": {"low": 1, "high": 6}}
    for epochs, params in ((3.5, {}), (3.0, {"student.fit.epochs": 3})):
        assert baseline_params(recipe(ranges, fit={"epochs": epochs})) == params


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), Interrupted(15, "stopped"), OSError()])
def test_a_stopped_trial_leaves_no_checkpoints(
    tuning: TuningStudy, monkeypatch: pytest.MonkeyPatch, context, stop: BaseException
) -> None:
    """Also while the finished student is measured."""
    monkeypatch.setattr(tuning_study, "training_without_stage", FakeTraining())

    def measure(*_: object) -> float:
        raise stop

    monkeypatch.setattr(tuning_study, "share_of_time", measure)
    with pytest.raises(type(stop)):
        run_trials(tuning, context)
    assert [t.state for t in tuning.open().trials] == [TrialState.FAIL]
    assert not list(tuning.folder.glob("trial-*"))


def test_a_new_study_does_not_continue_the_checkpoints_of_another(
    tuning: TuningStudy, monkeypatch: pytest.MonkeyPatch, context
) -> None:
    """As after a kill, if the study is then removed from its database."""
    old = tuning.folder / "trial-0000" / "student" / "best.json"
    old.parent.mkdir(parents=True)
    old.write_text("{}")
    fake = FakeTraining()
    monkeypatch.setattr(tuning_study, "training_without_stage", fake)
    run_trials(tuning, context)
    assert fake.calls == 12 and not old.exists()


def test_trials_of_ended_processes_fail_and_do_not_count(
    tuning: TuningStudy,
) -> None:
    """A trial of an earlier process with the number of this one, or of another, is also stale."""
    study = tuning.open()
    here = socket.gethostname()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        started = trial_process._start_time(other.pid)
        assert int(started) >= int(trial_process._start_time(os.getpid())) > 0
        of_this = this_process().removesuffix(trial_process.TOKEN)
        living = [this_process(), f"{here} {other.pid} {started} t", "elsewhere 1 2 t"]
        ended = [f"{of_this}t", f"{here} {os.getpid()} 1 t", f"{here} {other.pid} 1 t"]
        for process in [*living, *ended]:
            study.ask().set_user_attr("process", process)
        assert fail_stale_trials(study) == [3, 4, 5] and count_trials(study) == 3
        other.communicate(b"\n")
    assert fail_stale_trials(study) == [1]
    states = [TrialState.RUNNING, TrialState.FAIL, TrialState.RUNNING] + 3 * [TrialState.FAIL]
    assert [t.state for t in study.trials] == states


def test_without_start_times_the_number_of_a_process_decides(
    tuning: TuningStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial_process, "Path", lambda _: Path("/nowhere"))
    study = tuning.open()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for number in (os.getppid(), ended.pid):
        study.ask().set_user_attr("process", f"{socket.gethostname()} {number} ? t")
    assert fail_stale_trials(study) == [1]


def test_a_study_belongs_to_one_recipe(tuning: TuningStudy) -> None:
    tuning.open()
    tuning.open()
    replace(tuning, recipe=recipe(RATE, trials=99)).open()
    with pytest.raises(UsageError, match="another recipe"):
        replace(tuning, recipe=recipe(RATE, heads=3)).open()


def test_a_study_belongs_to_its_texts(tuning: TuningStudy) -> None:
    tuning.open()
    with pytest.raises(UsageError, match="changed since: data"):
        replace(tuning, inputs={"data": "b"}).open()


def test_results_are_the_best_recipe_all_trials_and_two_plots(tuning: TuningStudy) -> None:
    study = tuning.open()
    with pytest.raises(Exception, match="no trial finished"):
        write_results(tuning, study)
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
    write_results(tuning, study)
    best = load_recipe(tuning.folder / "best.toml")
    assert (best.student[0].fit.learning_rate, best.name, best.share, best.tune) == (
        1e-2,
        "r-best",
        "r",
        None,
    )
    assert [r["score"] for r in read_trials(tuning.folder)] == [0.7, 0.9, 0.8]
    pareto, importance = (
        (tuning.folder / f"{name}.svg").read_text() for name in ("pareto", "importance")
    )
    assert pareto.count('aria-roledescription="point"') == 3 + 2, "every trial, and the front again"
    assert "learning_rate" in importance
    assert all(ElementTree.fromstring(plot).tag.endswith("svg") for plot in (pareto, importance))


def test_tuning_keeps_the_saved_recipe_and_the_device_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = factories.write_data_and_teacher(tmp_path, train=32)
    students = [factories.tinybert_config(name=name) for name in ("first", "second")]
    run = distill(factories.make_recipe(document, student=students), tmp_path / "runs")
    saved = [file.read_bytes() for file in (run.recipe_file, run.metadata_file)]
    monkeypatch.setattr(tuning_study, "training_without_stage", FakeTraining())
    tuned = factories.make_recipe(
        document, student=factories.tinybert_config(), tune={"trials": 1, "ranges": RATE}
    )
    tune(tuned, tmp_path / "runs")
    assert [file.read_bytes() for file in (run.recipe_file, run.metadata_file)] == saved
    opened, names = RunDir.open(run.folder)
    assert names == ["first", "second"]
    for student in opened.students.values():
        student.require_trained()


def test_two_workers_share_the_trials_of_a_real_run(tmp_path: Path) -> None:
    document = factories.write_data_and_teacher(tmp_path, train=32)
    ranges = {
        "student.fit.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
        "student.layers": [1, 2],
    }
    tuned = factories.make_recipe(
        document,
        student=factories.tinybert_config(),
        tune={"trials": 6, "ranges": ranges, "prune": False},
    )
    folder = tune(tuned, tmp_path / "runs", workers=2)
    rows = read_trials(folder)
    assert [r["state"] for r in rows].count("complete") == 6
    assert len({r["process"] for r in rows}) == 2, "both workers must have run trials"
    assert [path.parent.name for path in (tmp_path / "runs").rglob("logits.npy")] == ["transfer"], (
        "labelled once, for all trials"
    )
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # like the workers
    try:
        run = distill(load_recipe(folder / "best.toml"), tmp_path / "runs")
    finally:
        torch.set_num_threads(before)
    (top,) = [row for row in scores(run) if row.model == "tinybert"]
    assert top.validation == pytest.approx(
        max(r["score"] for r in rows if r["score"] is not None)
    ), "the best recipe reproduces the best trial"


def start_tuning(folder: Path, sigint: signal.Handlers) -> subprocess.Popen[bytes]:
    """Start two workers, and wait until both train."""
    document = factories.write_data_and_teacher(folder)
    tuned = factories.make_recipe(
        document,
        student=factories.tinybert_config(fit={"epochs": 1000.0}),
        tune={"trials": 4, "ranges": RATE, "prune": False},
    )
    (folder / "r.toml").write_text(tuned.to_toml())
    handler = signal.signal(signal.SIGINT, sigint)  # the new process inherits what is ignored
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            kdedge_command("tune", "r.toml", "--workers", "2"),
            cwd=folder,
            env={**os.environ, "COLUMNS": "200"},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    signal.signal(signal.SIGINT, handler)
    end = time.monotonic() + 200
    while len(list(folder.glob("runs/r/tune/trial-*/student/log.jsonl"))) < 2:
        assert process.poll() is None and time.monotonic() < end, (folder / "output").read_text()
        time.sleep(0.2)
    return process


@pytest.mark.parametrize("number, exit_code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_stops_all_workers_before_the_run_is_free(
    tmp_path: Path, number: signal.Signals, exit_code: int
) -> None:
    """SIGTERM arrives at the first process alone, and Ctrl-C at all processes of its group."""
    is_ctrl_c = number is signal.SIGINT
    process = start_tuning(tmp_path, signal.SIG_DFL if is_ctrl_c else signal.SIG_IGN)
    try:
        if is_ctrl_c:
            os.killpg(process.pid, number)
        else:
            os.killpg(process.pid, signal.SIGINT)  # ignored by the first process, so by all
            time.sleep(2)
            process.send_signal(number)
        assert process.wait(timeout=100) == exit_code
        study = optuna.load_study(
            study_name="r", storage=f"sqlite:///{tmp_path}/runs/r/tune/study.db"
        )
        assert [t.state for t in study.trials] == 2 * [TrialState.FAIL]
        for trial in study.trials:
            worker = int(trial.user_attrs["process"].split()[1])
            assert trial_process._start_time(worker) == "", "a worker goes on"
        with RunDir(tmp_path / "runs" / "r", recipe(RATE)).locked():
            assert not list((tmp_path / "runs" / "r" / "tune").glob("trial-*"))
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    output = (tmp_path / "output").read_text()
    assert "Traceback" not in output and "every worker failed" not in output, output
    for worker in range(2):
        assert output.count(f"worker {worker}: stopped by signal 15") == 1, output
    assert f"error: stopped by signal {int(number)}; finished trials are kept" in output
    assert "a new trial replaces each stopped one" in output and "work is saved" not in output


def test_a_second_signal_kills_workers_that_do_not_stop() -> None:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(100,))
    try:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        process.start()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            workers._stop([process])
        assert process.exitcode == -signal.SIGKILL
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def test_a_stopped_search_says_that_the_trial_does_not_continue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = factories.write_data_and_teacher(tmp_path, train=32)
    tuned = factories.make_recipe(
        document, student=factories.tinybert_config(), tune={"trials": 2, "ranges": RATE}
    )

    def stop(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(SaveCallback, "on_train_begin", stop)
    with pytest.raises(Interrupted, match="finished trials are kept") as caught:
        tune(tuned, tmp_path / "runs")
    assert caught.value.exit_code == 143 and "new trial replaces" in caught.value.hint
    assert "the work is saved" not in caught.value.message
