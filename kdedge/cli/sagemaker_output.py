"""Run a SageMaker training job: metric lines on stdout, bundles in the model folder, reports.

The model folder is stored and passed on. It gets no transfer set and no training text.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from kdedge.cli.console import ConsoleProgress, print_line
from kdedge.cli.distill import SeedRuns, run_seeds, show, show_seeds
from kdedge.cli.export import export_and_show
from kdedge.cli.options import RecipeArguments
from kdedge.cli.sagemaker_job import TrainingJob
from kdedge.distillation.scores import ModelScores, scores
from kdedge.errors import MachineError
from kdedge.io.atomic import json_text, replace_dir, write_atomic
from kdedge.run.layout import RunDir
from kdedge.run.processes import is_main
from kdedge.run.progress import SILENT, Progress
from kdedge.run.stage import StageContext

LOGGED_VALUES = ("loss", "validation")


class JobProgress(ConsoleProgress):
    """Also print every new loss and score as a metric line, such as
    `kdedge_metric student_tinybert.loss=0.412300`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.last_metric = ""

    def advance(self, done: int, note: str = "") -> None:
        super().advance(done, note)
        name, _, value = note.rpartition(" ")
        if name in LOGGED_VALUES:
            line = metric_line(f"{self.title}.{name}", float(value))
            if line != self.last_metric:
                print_line(line)
            self.last_metric = line


def metric_line(name: str, value: float) -> str:
    """Format a value so that the regular expression of a metric definition can match it."""
    return f"kdedge_metric {name.replace(' ', '_')}={value:.6f}"


def run_job(job: TrainingJob) -> None:
    """Distill the job's recipe and write its outputs."""
    arguments = RecipeArguments(job.recipe(), job.overrides(), job.runs, job.option("threads"))
    progress: Progress = JobProgress() if is_main() else SILENT
    stages = StageContext(progress=progress)
    seed_runs = run_seeds(arguments.load(), job.runs, job.option("seeds") or 1, stages=stages)
    if is_main():
        show_seeds(seed_runs)
        write_job_output(seed_runs, job, stages)
        show(seed_runs.runs[0])


def write_job_output(seed_runs: SeedRuns, job: TrainingJob, stages: StageContext) -> None:
    """Print the final metrics, export bundles to the model folder, and write the reports."""
    first = seed_runs.runs[0]
    rows = scores(first)
    for name, value in final_metrics(rows, seed_runs).items():
        print_line(metric_line(name, value))
    bundles = {}
    for run in seed_runs.runs:
        for folder in export_and_show(run.folder, stages=stages):
            bundles[f"{run.folder.name}-{student_of(run, folder)}"] = folder
    copy_bundles(bundles, job.model)
    job.reports.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(first.recipe_file, job.reports / first.recipe_file.name)
    for name, student in first.students.items():
        shutil.copyfile(student.student / "log.jsonl", job.reports / f"{name}.jsonl")
    rows_json = [row.to_json() for row in rows]
    write_atomic(job.reports / "scores.json", json_text({"rows": rows_json, **seed_runs.to_json()}))


def student_of(run: RunDir, bundle: Path) -> str:
    """Return the name of the student of a run that a bundle was made from."""
    names = [name for name, student in run.students.items() if student.bundle == bundle]
    return names[0]


def copy_bundles(bundles: Mapping[str, Path], target: Path) -> None:
    """Copy bundles into `target`. They appear there only after all of them are copied.

    Args:
        bundles: Name of a folder in `target` -> folder of a bundle.
        target: The model folder.
    """
    try:
        for name, folder in bundles.items():
            part = target / f".{name}.part"
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(folder, part)
        for name in bundles:
            replace_dir(target / f".{name}.part", target / name)
    except OSError as error:
        raise MachineError(
            "a bundle cannot be copied to the model folder",
            f"{target}: {error}",
            "give the job a larger volume, and start it again",
        ) from error


def final_metrics(rows: list[ModelScores], seed_runs: SeedRuns) -> dict[str, float]:
    """Name the final values, for example `tinybert.validation` and `tinybert.retention`.

    With several seeds also `tinybert.test_mean`, `tinybert.test_sd` and `tinybert.gain`.
    """
    metrics = {}
    for row in rows:
        metrics[f"{row.model}.validation"] = row.validation
        metrics[f"{row.model}.test"] = row.test
        if row.retention is not None:
            metrics[f"{row.model}.retention"] = row.retention
    for name, stats in seed_runs.stats.items():
        if len(stats.values) > 1:
            metrics[f"{name}.test_mean"] = stats.mean
            metrics[f"{name}.test_sd"] = stats.sd
    for name, gain in seed_runs.gains.items():
        metrics[f"{name}.gain"] = gain.mean
    return metrics
