"""The trials of `kdedge tune`: train one recipe's student with other values for some keys.

The trials are in an Optuna study, which several processes may share.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState

from kdedge.distillation.student_training import (
    DistillContext,
    TrainedStudent,
    training_without_stage,
)
from kdedge.errors import CheckFailed, UsageError, first_line
from kdedge.evaluation.latency import share_of_time
from kdedge.io.atomic import remove
from kdedge.nn.best_checkpoint import remove_best
from kdedge.recipe import RangeConfig, Recipe, TuneConfig, with_values
from kdedge.run.paths import StudentDir
from kdedge.run.progress import SILENT, Progress
from kdedge.tuning.checks import strip_prefix
from kdedge.tuning.trial_process import has_ended, this_process

COUNTED_STATES = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
"""Trials in these states count towards the number that the recipe requests."""

REMOVE_TRIALS = (
    "give the recipe another name, or remove its trials: the folder tune/, or the study in the "
    "database of --storage"
)

SearchSpace = RangeConfig | list[bool | int | float | str]
"""The values that one key may have: a range of numbers, or a list of choices."""


@dataclass(frozen=True)
class TuningStudy:
    """One worker's access to a study.

    Attributes:
        recipe: The recipe whose keys the trials vary.
        folder: The folder of the trials' students and of the results.
        storage: URL of a database, which processes on several machines may share.
        inputs: Hashes of what the trials learn from, by name.
        worker: Number of this worker, from 0.
    """

    recipe: Recipe
    folder: Path
    storage: str
    inputs: Mapping[str, str]
    worker: int = 0

    @property
    def config(self) -> TuneConfig:
        assert self.recipe.tune is not None
        return self.recipe.tune

    def open(self) -> optuna.Study:
        """Open the study, and create it if it does not exist.

        Raises:
            UsageError: If it belongs to another recipe, other data or another teacher.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(
            study_name=self.recipe.name,
            storage=self._open_storage(),
            direction="maximize",
            pruner=self._pruner(),
            load_if_exists=True,
        )
        recipe = self.recipe.model_dump_json(exclude={"tune": {"trials"}, "threads": True})
        if study.user_attrs.get("recipe", recipe) != recipe:
            raise UsageError(
                "these trials belong to another recipe",
                self.storage,
                REMOVE_TRIALS,
            )
        inputs = dict(self.inputs)
        earlier = study.user_attrs.get("inputs", inputs)
        if earlier != inputs:
            changed = [name for name in inputs if earlier.get(name) != inputs[name]]
            raise UsageError(
                "these trials learned from other texts or from another teacher",
                f"{self.storage}; changed since: {', '.join(changed)}",
                REMOVE_TRIALS,
            )
        study.set_user_attr("recipe", recipe)
        study.set_user_attr("inputs", inputs)
        study.sampler = self._sampler(len(study.trials))
        return study

    def _open_storage(self) -> optuna.storages.RDBStorage:
        options = {}
        if self.storage.startswith("sqlite:"):
            options = {"connect_args": {"timeout": 60}}  # seconds to wait for another worker
        return optuna.storages.RDBStorage(self.storage, engine_kwargs=options)

    def _pruner(self) -> optuna.pruners.BasePruner:
        if self.config.prune:
            return optuna.pruners.MedianPruner(n_startup_trials=4)
        return optuna.pruners.NopPruner()

    def _sampler(self, existing_trials: int) -> optuna.samplers.BaseSampler:
        # Workers with equal seeds would try equal values, and so would a resumed study.
        entropy = [self.recipe.seed, self.worker, existing_trials]
        seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
        return optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=min(10, 1 + self.config.trials // 3), constant_liar=True
        )


def run_trials(tuning: TuningStudy, context: DistillContext, progress: Progress = SILENT) -> None:
    """Run trials until the study has the number of trials in the recipe.

    Every worker of a study calls this function.
    """
    study = tuning.open()
    fail_stale_trials(study)
    # The test split is removed, so no trial can use it.
    without_test = replace(context, task=replace(context.task, test=context.task.validation))
    while count_trials(study) < tuning.config.trials:
        trial = _new_trial(tuning, study)
        if count_trials(study, before=trial.number) >= tuning.config.trials:
            # Another worker has started the last trial in the meantime.
            study.tell(trial, state=TrialState.FAIL)
            return
        _run_trial(tuning, study, trial, without_test, progress)


def _new_trial(tuning: TuningStudy, study: optuna.Study) -> optuna.Trial:
    """Create a trial; the first worker first tries the recipe's own values.

    `Study.enqueue_trial` is not used: two workers on SQLite can get the same queued trial.
    """
    own_values = baseline_params(tuning.recipe)
    if tuning.worker or _was_tried(study, own_values):
        return _ask(study)
    sampler = study.sampler
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.sampler = optuna.samplers.PartialFixedSampler(own_values, sampler)
    trial = _ask(study)
    _suggest_all(trial, tuning.config)
    study.sampler = sampler
    return trial


def _ask(study: optuna.Study) -> optuna.Trial:
    trial = study.ask()
    trial.set_user_attr("process", this_process())
    return trial


def _was_tried(study: optuna.Study, values: dict[str, Any]) -> bool:
    """Return whether a trial that counts has these values."""
    trials = study.get_trials(deepcopy=False, states=COUNTED_STATES)
    return any(values.items() <= trial.params.items() for trial in trials)


def count_trials(study: optuna.Study, before: int | None = None) -> int:
    """Count the finished and running trials, optionally only those numbered below `before`."""
    trials = study.get_trials(deepcopy=False, states=COUNTED_STATES)
    if before is not None:
        trials = [trial for trial in trials if trial.number < before]
    return len(trials)


def fail_stale_trials(study: optuna.Study) -> list[int]:
    """Mark running trials as failed if their process on this machine has ended.

    Returns:
        The numbers of these trials.
    """
    stale = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if has_ended(str(trial.user_attrs.get("process", ""))):
            study.tell(trial.number, state=TrialState.FAIL)
            stale.append(trial.number)
    return stale


def _run_trial(
    tuning: TuningStudy,
    study: optuna.Study,
    trial: optuna.Trial,
    context: DistillContext,
    progress: Progress,
) -> None:
    """Train the trial's student; record its score and its time relative to the teacher's."""
    values = _suggest_all(trial, tuning.config)
    description = f"({_format_values(values)})"
    folder = tuning.folder / f"trial-{trial.number:04d}"
    try:
        remove(folder)  # checkpoints of another study would be continued
        trained = _train(tuning, trial, values, folder, context, progress)
        time_share = share_of_time(context.task.validation, trained.student, context.teacher)
    except optuna.TrialPruned:
        study.tell(trial, state=TrialState.PRUNED)
        progress.say(f"trial {trial.number}: pruned {description}")
        shutil.rmtree(folder, ignore_errors=True)
    except (CheckFailed, UsageError) as error:
        reason = first_line(error)
        trial.set_user_attr("reason", reason)
        study.tell(trial, state=TrialState.PRUNED)
        progress.say(f"trial {trial.number}: {reason} {description}")
        shutil.rmtree(folder, ignore_errors=True)
    except BaseException:
        study.tell(trial, state=TrialState.FAIL)
        shutil.rmtree(folder, ignore_errors=True)
        raise
    else:
        trial.set_user_attr("share_of_time", time_share)
        parameters = trained.student.model.parameters()
        trial.set_user_attr("parameters", sum(p.numel() for p in parameters))
        study.tell(trial, trained.validation)
        progress.say(
            f"trial {trial.number}: validation score {trained.validation:.4f} {description}"
        )


def _train(
    tuning: TuningStudy,
    trial: optuna.Trial,
    values: dict[str, Any],
    folder: Path,
    context: DistillContext,
    progress: Progress,
) -> TrainedStudent:
    """Train the student with a trial's values in an empty folder, where only its logs stay."""
    student = with_values(tuning.recipe, values).student[0]
    training = training_without_stage(
        context, student, folder, on_eval=PruningCallback(trial), progress=progress
    )
    trained_in = StudentDir(student.key, folder).student
    trained = training.learn(trained_in)
    remove_best(trained_in)
    return trained


def _format_values(values: dict[str, Any]) -> str:
    parts = []
    for key, value in values.items():
        shown = f"{value:.3g}" if isinstance(value, float) else str(value)
        parts.append(f"{key.removeprefix('student.')} {shown}")
    return ", ".join(parts)


class PruningCallback:
    """Reports each validation score to a trial, and stops a trial that falls behind."""

    def __init__(self, trial: optuna.Trial) -> None:
        self.trial = trial
        self.step = 0

    def __call__(self, score: float) -> float:
        self.trial.report(score, self.step)
        self.step += 1
        if self.trial.should_prune():
            raise optuna.TrialPruned
        return score


def _suggest_all(trial: optuna.Trial, config: TuneConfig) -> dict[str, Any]:
    return {key: suggest(trial, key, space) for key, space in config.ranges.items()}


def suggest(trial: optuna.trial.BaseTrial, key: str, space: SearchSpace) -> Any:
    """Return the trial's value for one key of the recipe."""
    if isinstance(space, list):
        return trial.suggest_categorical(key, space)
    if is_whole(space):
        return trial.suggest_int(key, int(space.low), int(space.high), log=space.log)
    return trial.suggest_float(key, space.low, space.high, log=space.log)


def is_whole(space: RangeConfig) -> bool:
    """Return whether the range has only whole numbers."""
    return isinstance(space.low, int) and isinstance(space.high, int)


def baseline_params(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe's own values of the keys to tune, if they are in their search space."""
    assert recipe.tune is not None
    params = {}
    for key, space in recipe.tune.ranges.items():
        value: Any = recipe.student[0]
        for attribute in strip_prefix(recipe, key).split("."):
            value = getattr(value, attribute)
        if _contains(space, value):
            params[key] = value
    return params


def _contains(space: SearchSpace, value: Any) -> bool:
    if isinstance(space, list):
        return value in space
    if value is None or not space.low <= value <= space.high:
        return False
    return not is_whole(space) or value == int(value)
