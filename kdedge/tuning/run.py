"""The best recipe among many: trials on one teacher's answers, shared among workers, and what came of them."""

from __future__ import annotations

import json
import multiprocessing
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from kdedge.distillation.pipeline import prepare_context
from kdedge.distillation.transfer_stage import reject_auto_size
from kdedge.errors import CheckFailed, UsageError
from kdedge.evaluation.plots import bars, scatter
from kdedge.io.atomic import json_text, write_atomic
from kdedge.recipe import RangeConfig, Recipe, with_values
from kdedge.run.layout import RunDir
from kdedge.run.progress import SILENT, Progress
from kdedge.run.stage import StageContext
from kdedge.run.threads import prepare_process
from kdedge.tuning.study import (
    TuningStudy,
    fail_stale_trials,
    pareto_front,
    run_trials,
    strip_prefix,
)


def tune(
    recipe: Recipe,
    runs: Path,
    *,
    storage: str | None = None,
    workers: int = 1,
    progress: Progress = SILENT,
) -> Path:
    """Run the recipe's trials, together with whoever else works on `storage`; returns the folder of the results.

    storage: a database URL; default: a SQLite file in the run. Teacher and transfer set are made first, once.
    """
    check(recipe)
    run = RunDir.create(recipe, runs)
    folder = run.folder / "tune"
    with run.locked():
        context = prepare_context(recipe, run, stages=StageContext(progress=progress))
        folder.mkdir(exist_ok=True)
        studio = TuningStudy(recipe, folder, storage or f"sqlite:///{folder.resolve()}/study.db")
        study = studio.open()
        for number in fail_stale_trials(study):
            progress.say(f"trial {number}: its process is gone; it does not count")
        if workers == 1:
            run_trials(studio, context, progress)
        else:
            _in_processes(studio, runs, workers)
        write_results(studio, study)
        run.describe()
    return folder


def check(recipe: Recipe) -> None:
    """Raises UsageError unless the recipe has one student and every range fits it at both of its ends."""
    if recipe.tune is None:
        hint = 'add [tune.ranges] with lines such as "student.fit.learning_rate" = { low = 1e-4, high = 1e-2, log = true }'
        raise UsageError(
            "the recipe names nothing to tune", f"{recipe.name} has no [tune] table", hint
        )
    if len(recipe.student) > 1:
        raise UsageError(
            "one student is tuned at a time",
            f"{recipe.name} has {len(recipe.student)}",
            "keep one [[student]] in this recipe",
        )
    reject_auto_size(recipe)
    for key, wish in recipe.tune.ranges.items():
        if strip_prefix(recipe, key) in ("kind", "name"):
            raise UsageError(
                "this key of a student is not tuned",
                key,
                "tune one student after the other: a recipe for each kind",
            )
        for value in (wish.low, wish.high) if isinstance(wish, RangeConfig) else wish:
            _fits(recipe, key, value)


def _fits(recipe: Recipe, key: str, value: Any) -> None:
    """A key must be known and take such a value; whether it goes with the other keys is seen trial by trial."""
    try:
        with_values(recipe, {key: value})
    except UsageError as error:
        if f"{strip_prefix(recipe, key)}:" in error.detail.replace("student.0.", ""):
            raise


def _in_processes(studio: TuningStudy, runs: Path, workers: int) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_worker, args=(replace(studio, worker=number), runs))
        for number in range(workers)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    broken = [process for process in processes if process.exitcode]
    if len(broken) == workers:
        raise CheckFailed(
            "every worker ended with an error",
            f"exit codes {[process.exitcode for process in broken]}",
            "run with one worker to see why",
        )


def _worker(studio: TuningStudy, runs: Path) -> None:
    from kdedge.cli.console import ConsoleProgress

    prepare_process(studio.recipe.threads or 1)
    run_trials(
        studio,
        prepare_context(studio.recipe, RunDir.create(studio.recipe, runs)),
        ConsoleProgress(),
    )


def write_results(studio: TuningStudy, study: optuna.Study) -> None:
    """best.toml, trials.json, importance.svg and pareto.svg. Raises GateFailed where no trial came to its end."""
    done = [t for t in study.trials if t.state is TrialState.COMPLETE]
    if not done:
        why = sorted({str(t.user_attrs["why"]) for t in study.trials if "why" in t.user_attrs})
        raise CheckFailed(
            "no trial came to its end",
            "; ".join(why) or f"{len(study.trials)} trials",
            "narrow the ranges",
        )
    best = best_recipe(studio.recipe, study.best_trial)
    write_atomic(studio.folder / "best.toml", best.to_toml())
    write_atomic(studio.folder / "trials.json", json_text([row(t) for t in study.trials]))
    write_atomic(
        studio.folder / "importance.svg", bars("What decided the score (fANOVA)", importance(study))
    )
    fastest = [(100 * t.user_attrs["share_of_time"], t.value) for t in pareto_front(done)]
    points = [(100 * t.user_attrs["share_of_time"], float(t.value or 0.0)) for t in done]
    title = "Score on the validation split against latency"
    write_atomic(
        studio.folder / "pareto.svg",
        scatter(title, "% of the teacher's time for one text, in torch", "score", points, fastest),
    )


def best_recipe(recipe: Recipe, trial: FrozenTrial) -> Recipe:
    """The recipe of the best trial, to be distilled from its start: same teacher and transfer set, a run of its own."""
    found = with_values(recipe, trial.params)
    return found.model_copy(
        update={"name": f"{recipe.name}-best", "share": recipe.share or recipe.name, "tune": None}
    )


def importance(study: optuna.Study) -> dict[str, float]:
    """Key -> its share of the variance of the score, largest first (fANOVA, Hutter et al. 2014); empty where there is none."""
    try:
        found = optuna.importance.get_param_importances(
            study, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0)
        )
    except (RuntimeError, ValueError):  # too few trials, or all alike
        return {}
    return {key: float(value) for key, value in found.items()}


def row(trial: FrozenTrial) -> dict[str, Any]:
    """One trial as a document."""
    attributes = {
        key: trial.user_attrs[key]
        for key in ("share_of_time", "parameters", "process", "why")
        if key in trial.user_attrs
    }
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "score": trial.value,
        "values": trial.params,
        **attributes,
    }


def read_trials(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((folder / "trials.json").read_text(encoding="utf-8"))
    return rows
