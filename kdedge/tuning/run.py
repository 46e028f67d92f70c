"""Search for the best recipe: run trials in one or more workers and write the results.

tune/best.toml       the recipe of the best trial
tune/trials.json     every trial with its values, score and time
tune/importance.svg  how much each key decides the score
tune/pareto.svg      score against time
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from kdedge.data.task import Task
from kdedge.distillation.general import train_general_students
from kdedge.distillation.pipeline import prepare_context
from kdedge.distillation.student_training import DistillContext
from kdedge.errors import CheckFailed
from kdedge.evaluation.pareto import pareto_front
from kdedge.evaluation.plots import bars, scatter
from kdedge.io.atomic import json_text, write_atomic
from kdedge.recipe import Recipe, with_values
from kdedge.run.layout import RunDir
from kdedge.run.progress import SILENT, Progress, Silent
from kdedge.run.stage import StageContext
from kdedge.teacher.finetune import pretrained_hash
from kdedge.tuning.checks import check_recipe
from kdedge.tuning.study import (
    TuningStudy,
    fail_stale_trials,
    run_trials,
)
from kdedge.tuning.workers import named_stop, run_workers

TRIALS_FILE = "trials.json"

TRIAL_ATTRIBUTES = ("share_of_time", "parameters", "process", "reason")


def tune(
    recipe: Recipe,
    runs: Path,
    *,
    task: Task | None = None,
    storage: str | None = None,
    workers: int = 1,
    progress: Progress = SILENT,
    worker_progress: Callable[[], Progress] = Silent,
) -> Path:
    """Run the recipe's trials, and write the best recipe and figures about all trials.

    Teacher, transfer set and general student are made first; all trials share them.

    Args:
        runs: Folder of all runs.
        task: The recipe's task if it is already loaded.
        storage: Database URL of the study; default: a SQLite file in the run's folder.
            Other machines may run trials of the same study.
        workers: Number of processes that share the trials.
        worker_progress: Creates the progress of each process if there are several.

    Returns:
        The folder with the results.

    Raises:
        Interrupted: If a signal arrives; finished trials are kept, and no worker is left.
    """
    check_recipe(recipe)
    run = RunDir.create(recipe, runs)
    folder = run.tune
    with run.locked():
        stages = StageContext(progress=progress)
        context = prepare_context(recipe, run, task=task, stages=stages)
        train_general_students(run, context.task, stages)
        folder.mkdir(exist_ok=True)
        storage = storage or f"sqlite:///{folder.resolve()}/study.db"
        tuning = TuningStudy(recipe, folder, storage, _inputs(context))
        study = tuning.open()
        for number in fail_stale_trials(study):
            progress.say(f"trial {number}: its process has ended; the trial does not count")
        with named_stop():
            if workers == 1:
                run_trials(tuning, context, progress)
            else:
                run_workers(tuning, runs, workers, worker_progress)
        write_results(tuning, study)
    return folder


def _inputs(context: DistillContext) -> dict[str, str]:
    """Return hashes of what the trials learn from that are equal on every machine.

    A fine-tuned teacher and its texts are not: CPUs round differently.
    """
    return {
        "data": context.task.content_hash(),
        "teacher.model": pretrained_hash(context.recipe.teacher),
    }


def write_results(tuning: TuningStudy, study: optuna.Study) -> None:
    """Write the best recipe, the list of trials and two plots.

    Raises:
        CheckFailed: If no trial finished.
    """
    trials = study.trials
    finished = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    if not finished:
        reasons = {str(trial.user_attrs.get("reason", "")) for trial in trials} - {""}
        detail = "; ".join(sorted(reasons)) or f"{len(trials)} trials"
        raise CheckFailed("no trial finished", detail, "narrow the ranges")
    best = best_recipe(tuning.recipe, study.best_trial)
    rows = [trial_row(trial) for trial in trials]
    points = [_time_and_score(trial) for trial in finished]
    pareto = scatter(
        "Score on the validation split against latency",
        "% of the teacher's time for one text, in torch",
        "score",
        points,
        pareto_front(points),
    )
    importance_plot = bars("Importance for the score (fANOVA)", importance(study))
    write_atomic(tuning.folder / "best.toml", best.to_toml())
    write_atomic(tuning.folder / TRIALS_FILE, json_text(rows))
    write_atomic(tuning.folder / "importance.svg", importance_plot)
    write_atomic(tuning.folder / "pareto.svg", pareto)


def _time_and_score(trial: FrozenTrial) -> tuple[float, float]:
    return 100 * trial.user_attrs["share_of_time"], float(trial.value or 0.0)


def best_recipe(recipe: Recipe, trial: FrozenTrial) -> Recipe:
    """Return the recipe of a trial as a new run that shares teacher and transfer set."""
    changes = {"name": f"{recipe.name}-best", "share": recipe.share or recipe.name, "tune": None}
    return with_values(recipe, trial.params).model_copy(update=changes)


def importance(study: optuna.Study) -> dict[str, float]:
    """Compute each key's share of the variance of the score (fANOVA, Hutter et al. 2014).

    Returns:
        Key -> share, largest first; empty if there are too few trials or all are alike.
    """
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    try:
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    except (RuntimeError, ValueError):
        return {}
    return {key: float(share) for key, share in shares.items()}


def trial_row(trial: FrozenTrial) -> dict[str, Any]:
    """Return one trial as an entry of trials.json; missing figures are None."""
    row = {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "score": trial.value,
        "values": trial.params,
    }
    for attribute in TRIAL_ATTRIBUTES:
        row[attribute] = trial.user_attrs.get(attribute)
    return row


def read_trials(folder: Path) -> list[dict[str, Any]]:
    """Read the entries of trials.json in a folder of results."""
    rows: list[dict[str, Any]] = json.loads((folder / TRIALS_FILE).read_text(encoding="utf-8"))
    return rows
