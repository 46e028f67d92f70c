"""The trials of `kdedge tune`: students from one recipe with other values for some of its keys, in a study that many processes share."""

from __future__ import annotations

import os
import shutil
import socket
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from kdedge.distillation.student_training import DistillContext, training_without_stage
from kdedge.errors import CheckFailed, UsageError
from kdedge.evaluation.latency import share_of_time
from kdedge.recipe import RangeConfig, Recipe, TuneConfig, with_values
from kdedge.run.progress import SILENT, Progress
from kdedge.teacher.ensemble import Ensemble

COUNTED = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True)
class TuningStudy:
    """One worker's view of a study: the recipe it varies, the run it works in, and where the trials are written down.

    storage: a database URL that several processes, on one machine or on many, may share.
    """

    recipe: Recipe
    folder: Path
    storage: str
    worker: int = 0

    @property
    def plan(self) -> TuneConfig:
        assert self.recipe.tune is not None
        return self.recipe.tune

    def open(self) -> optuna.Study:
        """The study, made where there is none. Raises UsageError where it is one of another recipe."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        patience = {"connect_args": {"timeout": 60}} if self.storage.startswith("sqlite:") else {}
        storage = optuna.storages.RDBStorage(self.storage, engine_kwargs=patience)
        pruner = (
            optuna.pruners.MedianPruner(n_startup_trials=4)
            if self.plan.prune
            else optuna.pruners.NopPruner()
        )
        study = optuna.create_study(
            study_name=self.recipe.name,
            storage=storage,
            direction="maximize",
            pruner=pruner,
            load_if_exists=True,
        )
        mine = self.recipe.model_dump_json(exclude={"tune": {"trials"}, "threads": True})
        if Recipe.model_validate_json(
            study.user_attrs.setdefault("recipe", mine)
        ) != Recipe.model_validate_json(mine):
            raise UsageError(
                "these trials were made from another recipe",
                self.storage,
                "give the recipe another name, or remove its tune/ folder",
            )
        study.set_user_attr("recipe", mine)
        # Drawn anew for every worker and every return to the study: equal seeds would try equal values.
        seed = int(
            np.random.SeedSequence(
                [self.recipe.seed, self.worker, len(study.trials)]
            ).generate_state(1)[0]
        )
        study.sampler = optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=min(10, 1 + self.plan.trials // 3), constant_liar=True
        )
        return study


def run_trials(studio: TuningStudy, context: DistillContext, progress: Progress = SILENT) -> None:
    """Run trials until the study has as many as the recipe asks for; every worker of a study does this."""
    study = studio.open()
    fail_stale_trials(study)
    # A trial reads no test split: it is not there.
    blind = replace(context, task=replace(context.task, test=context.task.validation))
    while count(study) < studio.plan.trials:
        trial = _ask(studio, study)
        trial.set_user_attr("process", f"{socket.gethostname()} {os.getpid()}")
        if (
            count(study, before=trial.number) >= studio.plan.trials
        ):  # another worker took the last one meanwhile
            study.tell(trial, state=TrialState.FAIL)
            return
        _run(studio, study, trial, blind, progress)


def _ask(studio: TuningStudy, study: optuna.Study) -> optuna.Trial:
    """A new trial; the first worker's first one is the recipe as it stands.

    It is not put into Optuna's queue: two workers on SQLite can draw the same queued trial.
    """
    if studio.worker or study.get_trials(deepcopy=False):
        return study.ask()
    usual = study.sampler
    study.sampler = optuna.samplers.PartialFixedSampler(baseline_params(studio.recipe), usual)
    trial = study.ask()
    for key, wish in studio.plan.ranges.items():
        suggest(trial, key, wish)
    study.sampler = usual
    return trial


def count(study: optuna.Study, before: int | None = None) -> int:
    """Trials that are finished or being run, those below a number alone if one is given."""
    states = (*COUNTED, TrialState.RUNNING)
    return sum(
        t.state in states and (before is None or t.number < before)
        for t in study.get_trials(deepcopy=False)
    )


def fail_stale_trials(study: optuna.Study) -> list[int]:
    """Trials whose process on this machine is gone are marked as failed, which count for nothing; returns their numbers."""
    gone = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        host, _, process = str(trial.user_attrs.get("process", "")).partition(" ")
        if host == socket.gethostname() and not _alive(int(process)):
            study.tell(trial.number, state=TrialState.FAIL)
            gone.append(trial.number)
    return gone


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _run(
    studio: TuningStudy,
    study: optuna.Study,
    trial: optuna.Trial,
    context: DistillContext,
    progress: Progress,
) -> None:
    values = {key: suggest(trial, key, wish) for key, wish in studio.plan.ranges.items()}
    shown = ", ".join(
        f"{key.removeprefix('student.')} {value:.3g}"
        if isinstance(value, float)
        else f"{key} {value}"
        for key, value in values.items()
    )
    folder = studio.folder / f"trial-{trial.number:04d}"
    try:
        student = with_values(studio.recipe, values).student[0]
        trained = training_without_stage(
            context, student, folder, on_eval=PruningCallback(trial), progress=progress
        ).learn(folder / "student")
    except optuna.TrialPruned:
        study.tell(trial, state=TrialState.PRUNED)
        progress.say(f"trial {trial.number}: given up ({shown})")
    except (CheckFailed, UsageError) as error:
        trial.set_user_attr("why", error.what)
        study.tell(trial, state=TrialState.PRUNED)
        progress.say(f"trial {trial.number}: {error.what} ({shown})")
    except BaseException:
        study.tell(trial, state=TrialState.FAIL)
        raise
    else:
        teachers = (
            context.teacher.members if isinstance(context.teacher, Ensemble) else (context.teacher,)
        )
        trial.set_user_attr(
            "share_of_time", share_of_time(context.task.validation, trained.student, *teachers)
        )
        parameters = trained.student.model.parameters()
        trial.set_user_attr("parameters", sum(p.numel() for p in parameters))
        study.tell(trial, trained.validation)
        progress.say(
            f"trial {trial.number}: {trained.validation:.4f} on the validation split ({shown})"
        )
        return
    shutil.rmtree(folder, ignore_errors=True)


class PruningCallback:
    """Tells a trial each score on the validation split, and stops it where it falls behind."""

    def __init__(self, trial: optuna.Trial) -> None:
        self.trial, self.check = trial, 0

    def __call__(self, score: float) -> float:
        self.trial.report(score, self.check)
        self.check += 1
        if self.trial.should_prune():
            raise optuna.TrialPruned
        return score


def suggest(trial: Any, key: str, wish: RangeConfig | list[Any]) -> Any:
    """A value for one key of the recipe."""
    if isinstance(wish, list):
        return trial.suggest_categorical(key, wish)
    if isinstance(wish.low, int) and isinstance(wish.high, int):
        return trial.suggest_int(key, wish.low, wish.high, log=wish.log)
    return trial.suggest_float(key, wish.low, wish.high, log=wish.log)


def strip_prefix(recipe: Recipe, key: str) -> str:
    """`fit.learning_rate` of `student.fit.learning_rate` and of `student.NAME.fit.learning_rate`."""
    return key.removeprefix("student.").removeprefix(f"{Recipe.student_name(recipe.student[0])}.")


def baseline_params(recipe: Recipe) -> dict[str, Any]:
    """The recipe's own values of the keys to tune, where they lie within their ranges: the first trial."""
    assert recipe.tune is not None
    found, student = {}, recipe.student[0]
    for key, wish in recipe.tune.ranges.items():
        value: Any = student
        for word in strip_prefix(recipe, key).split("."):
            value = getattr(value, word)
        if (
            value in wish
            if isinstance(wish, list)
            else value is not None and wish.low <= value <= wish.high
        ):
            found[key] = value
    return found


def pareto_front(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """Finished trials that no other beats in both score and share of the teacher's time, fastest first."""
    done = sorted(
        (t for t in trials if t.state is TrialState.COMPLETE),
        key=lambda t: (t.user_attrs["share_of_time"], -_value(t)),
    )
    kept: list[FrozenTrial] = []
    for trial in done:
        if not kept or _value(trial) > _value(kept[-1]):
            kept.append(trial)
    return kept


def _value(trial: FrozenTrial) -> float:
    assert trial.value is not None
    return float(trial.value)
