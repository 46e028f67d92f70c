"""Train many variants of a student, log each finished training, and compare at equal seeds."""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from kdedge.cli.console import ConsoleProgress
from kdedge.data.task import Task
from kdedge.distillation.general import train_general_students
from kdedge.distillation.pipeline import prepare_context
from kdedge.distillation.student_training import (
    LABELS_ONLY,
    DistillContext,
    StudentTraining,
    stage_inputs,
    training_without_stage,
)
from kdedge.errors import CheckFailed, UsageError, first_line
from kdedge.evaluation.bootstrap import bootstrap_rows, bootstrap_scores
from kdedge.evaluation.statistics import PairedDifference, paired_difference
from kdedge.io.atomic import json_text, write_atomic
from kdedge.recipe import ObjectiveConfig, Recipe, StudentConfig, load_recipe
from kdedge.run.layout import RunDir
from kdedge.run.progress import Progress
from kdedge.run.stage import StageContext, read_result
from kdedge.run.threads import settle_threads
from kdedge.teacher.result import TeacherResult

Rows = Mapping[int, Mapping[str, Any]]
"""Seed -> result of a training: its scores and seconds, or `why` it failed."""


@dataclass(frozen=True)
class StudyArguments:
    """The arguments that all studies on a recipe share."""

    recipe: Recipe
    runs: Path
    seeds: tuple[int, ...]
    progress: Progress

    @contextmanager
    def prepared(self) -> Iterator[tuple[RunDir, DistillContext, TeacherResult]]:
        """Make the teacher and the transfer set in a locked run; yield both with the run."""
        run = RunDir.create(self.recipe, self.runs)
        stages = StageContext(progress=self.progress)
        with run.locked():
            context = prepare_context(self.recipe, run, stages=stages)
            train_general_students(run, context.task, stages)
            yield run, context, read_result(run.teacher, TeacherResult)

    def students(self) -> dict[str, StudentConfig]:
        return {student.key: student for student in self.recipe.student}

    def student(self, name: str | None) -> StudentConfig:
        """Return the student of that name, or the recipe's first one."""
        students = self.students()
        if name is None:
            return self.recipe.student[0]
        if name not in students:
            raise UsageError(
                "the recipe has no such student", name, f"one of {', '.join(students)}"
            )
        return students[name]


def study_command(function: Callable[..., None]) -> click.Command:
    """Make a click command of a function that takes `StudyArguments` and its own options."""

    @click.command()
    @click.argument("recipe", type=click.Path(path_type=Path))
    @click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE")
    @click.option("--runs", type=click.Path(path_type=Path), default=Path("runs"))
    @click.option("--seeds", type=click.IntRange(min=1), default=3, help="Number of seeds.")
    @click.option("--threads", type=click.IntRange(min=1))
    @functools.wraps(function)
    def command(
        recipe: Path,
        overrides: tuple[str, ...],
        runs: Path,
        seeds: int,
        threads: int | None,
        **options: Any,
    ) -> None:
        loaded = settle_threads(load_recipe(recipe, overrides), runs, threads)
        first = loaded.training_seed
        all_seeds = tuple(range(first, first + seeds))
        function(StudyArguments(loaded, runs, all_seeds, ConsoleProgress()), **options)

    return command


@dataclass(frozen=True)
class TrainingVariant:
    """A student, its objective and its transfer set: one row of a study's table."""

    name: str
    context: DistillContext
    student: StudentConfig

    def stages(self) -> list[ObjectiveConfig]:
        """Return the objective of each stage of the training, in order."""
        if self.student.first_stage:
            return [self.student.objective.layers_alone(), self.student.objective.outputs_alone()]
        return [self.student.objective]

    def key(self, seed: int, transfer: str) -> str:
        """Hash everything that decides the weights; `transfer` is the hash of the texts.

        The number of threads only changes rounding and is not part of the key.
        """
        *before, last = self.stages()
        inputs = stage_inputs(self.context, self.student, last)
        inputs["before"] = [objective.model_dump(mode="json") for objective in before]
        inputs["transfer"] = transfer
        inputs["seed"] = seed
        return hashlib.sha256(json_text(inputs).encode()).hexdigest()[:16]

    def training(self, context: DistillContext, folder: Path) -> StudentTraining:
        """Return the training of the student, which has not begun."""
        return training_without_stage(context, self.student, folder)

    def train(self, seed: int, folder: Path) -> dict[str, Any]:
        """Train from a seed; write test_logits.npy into `folder` and return the scores."""
        recipe = self.context.recipe.model_copy(update={"student_seed": seed})
        context = replace(self.context, recipe=recipe)
        result = self.training(context, folder)(folder)
        return {name: result[name] for name in ("metric", "validation", "test")}


def baseline(name: str, context: DistillContext, student: StudentConfig) -> TrainingVariant:
    """Build the label-only baseline: the same student, the labelled texts, only their labels."""
    labelled = context.transfer.take(context.transfer.texts.labelled)
    changes: dict[str, Any] = {"objective": LABELS_ONLY}
    if student.first_stage:
        changes["layers_first"] = None
    changed = student.model_copy(update=changes)
    return TrainingVariant(name, replace(context, transfer=labelled), changed)


class ResultLog:
    """The finished trainings of a study: one JSON line each, and a file of test logits (N, C)."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.file = folder / "runs.jsonl"
        self.rows: dict[str, dict[str, Any]] = {row["key"]: row for row in self._read()}

    def _read(self) -> Iterator[dict[str, Any]]:
        """Yield the complete lines; remove a last line that was cut off while it was written."""
        if not self.file.exists():
            return
        complete, _, rest = self.file.read_text(encoding="utf-8").rpartition("\n")
        if rest:
            write_atomic(self.file, f"{complete}\n" if complete else "")
        yield from map(json.loads, complete.splitlines())

    def add(self, row: dict[str, Any], logits: Path | None) -> None:
        """Log a finished training; `logits` is None if it failed."""
        if logits:
            shutil.copyfile(logits, self.logits_file(row["key"]))
        self.rows[row["key"]] = row
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")

    def logits_file(self, key: str) -> Path:
        return self.folder / f"{key}.npy"


def train_all(
    variants: Sequence[TrainingVariant], seeds: Sequence[int], log: ResultLog, progress: Progress
) -> list[Rows]:
    """Train every variant from every seed, seed by seed; skip what the log has.

    Returns:
        The rows of each variant, in the order of `variants`.
    """
    keys = _keys(variants, seeds)
    missing = [trial for trial, key in keys.items() if key not in log.rows]
    if len(missing) < len(keys):
        progress.say(f"{len(keys) - len(missing)} of {len(keys)} trainings are in the log")
    progress.start("trainings", len(missing))
    for done, (seed, index) in enumerate(missing, 1):
        row = _train_one(variants[index], seed, keys[seed, index], log)
        outcome = f"{row['test']:.4f} in {row['seconds']} s" if "test" in row else row["why"]
        progress.advance(done, f"{variants[index].name}, seed {seed}: {outcome}")
    progress.finish()
    return [{seed: log.rows[keys[seed, i]] for seed in seeds} for i in range(len(variants))]


def _keys(variants: Sequence[TrainingVariant], seeds: Sequence[int]) -> dict[tuple[int, int], str]:
    """(seed, index of the variant) -> key, seed by seed."""
    # Several variants share a context, and a hash reads all texts.
    hashes: dict[int, str] = {}
    for variant in variants:
        context = variant.context
        if id(context) not in hashes:
            hashes[id(context)] = context.transfer.content_hash()
    keys = {}
    for seed in seeds:
        for index, variant in enumerate(variants):
            keys[seed, index] = variant.key(seed, hashes[id(variant.context)])
    return keys


def _train_one(variant: TrainingVariant, seed: int, key: str, log: ResultLog) -> dict[str, Any]:
    row: dict[str, Any] = {
        "key": key,
        "cell": variant.name,
        "seed": seed,
        "texts": len(variant.context.transfer),
    }
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        try:
            row |= variant.train(seed, Path(folder))
        except (UsageError, CheckFailed) as error:
            # Such as a layer map that does not fit, or a loss that is not finite.
            row["why"] = first_line(error)
            log.add(row, None)
            return row
        row["seconds"] = round(time.monotonic() - start)
        log.add(row, Path(folder) / "test_logits.npy")
    return row


class Scores:
    """Scores of trainings on the test split and on resamples of its texts."""

    def __init__(self, task: Task, log: ResultLog) -> None:
        self.task = task
        self.log = log
        self.draws = bootstrap_rows(len(task.test), seed=0)
        self._resampled: dict[str, np.ndarray] = {}

    def resampled(self, key: str) -> np.ndarray:
        """(R,) the metric on each resample."""
        if key not in self._resampled:
            logits = np.load(self.log.logits_file(key), allow_pickle=False)
            self._resampled[key] = bootstrap_scores(
                self.task.spec, logits, self.task.test.labels, self.draws
            )
        return self._resampled[key]

    def against(self, rows: Rows, reference: Rows) -> PairedDifference | None:
        """Compare over the seeds that finished in both; None if there are none."""
        seeds = [seed for seed in rows if "test" in rows[seed] and "test" in reference[seed]]
        if not seeds:
            return None
        return paired_difference(
            _test_scores(rows, seeds),
            _test_scores(reference, seeds),
            self._test_draws(rows, seeds),
            self._test_draws(reference, seeds),
        )

    def _test_draws(self, rows: Rows, seeds: Sequence[int]) -> np.ndarray:
        """(S, R) resampled scores of S seeds."""
        return np.stack([self.resampled(rows[seed]["key"]) for seed in seeds])


def _test_scores(rows: Rows, seeds: Sequence[int]) -> np.ndarray:
    return np.array([rows[seed]["test"] for seed in seeds])
