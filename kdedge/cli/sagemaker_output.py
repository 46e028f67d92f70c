"""What a training job leaves behind: metric lines on stdout, the run in the model folder, reports beside it."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from kdedge.cli.console import ConsoleProgress
from kdedge.cli.sagemaker import TrainingJob, metric_line
from kdedge.distillation.scores import ModelScores, scores
from kdedge.distillation.seeds import seeds_json
from kdedge.errors import MachineError
from kdedge.evaluation.statistics import PairedDifference, SeedStats
from kdedge.io.atomic import json_text, replace_dir, write_atomic
from kdedge.run.layout import RunDir

READINGS = ("loss", "validation")
LEFT_BEHIND = (
    ".lock*",
    "*.part",
    "*.old",
    "checkpoint-*",
    "tensorboard",
    "signals-*",
    ".signals-*",
)


class JobProgress(ConsoleProgress):
    """A Progress that also prints every new loss and score as a metric line: `kdedge_metric student_tinybert.loss=0.412300`."""

    def __init__(self) -> None:
        super().__init__()
        self.told = ("", "")

    def advance(self, done: int, note: str = "") -> None:
        super().advance(done, note)
        word, _, value = note.rpartition(" ")
        if word in READINGS and self.told != (self.what, note):
            self.told = (self.what, note)
            click.echo(metric_line(f"{self.what}.{word}", float(value)))


def write_job_output(
    runs: list[RunDir],
    container: TrainingJob,
    spreads: dict[str, SeedStats],
    taught: dict[str, PairedDifference],
) -> None:
    """Print the final metrics, copy the runs, with those they share stages with, to the model folder, and write the reports.

    spreads: model -> its test scores over several seeds; taught: student -> what it has above its label-only baseline; empty for one seed.
    """
    rows = scores(runs[0])
    for name, value in (
        final_metrics(rows, spreads) | {f"{name}.gain": gain.mean for name, gain in taught.items()}
    ).items():
        click.echo(metric_line(name, value))
    copy_whole(
        list(dict.fromkeys(folder for run in runs for folder in (run.folder, run.shared))),
        container.model,
    )
    if container.reports:
        container.reports.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(runs[0].folder / "recipe.toml", container.reports / "recipe.toml")
        for name, home in runs[0].student_dirs.items():
            shutil.copyfile(home / "student" / "log.jsonl", container.reports / f"{name}.jsonl")
        write_atomic(
            container.reports / "scores.json",
            json_text({"rows": [row.to_json() for row in rows], **seeds_json(spreads, taught)}),
        )


def copy_whole(folders: list[Path], target: Path) -> None:
    """Copy folders into `target`, where each appears under its name once all of them are copied. Raises MachineError."""
    parts = [(folder, target / f".{folder.name}.part") for folder in folders]
    try:
        for folder, part in parts:
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(folder, part, ignore=shutil.ignore_patterns(*LEFT_BEHIND))
        for folder, part in parts:
            replace_dir(part, target / folder.name)
    except OSError as error:
        raise MachineError(
            "the run cannot be copied to the model folder",
            f"{target}: {error}",
            "give the job a larger volume, and start it again",
        ) from error


def final_metrics(rows: list[ModelScores], spreads: dict[str, SeedStats]) -> dict[str, float]:
    """`tinybert.validation`, `.test`, `.retention` for every model; over several seeds also `.report_mean` and `.report_sd`."""
    found: dict[str, float] = {}
    for row in rows:
        found |= {f"{row.model}.validation": row.validation, f"{row.model}.test": row.test}
        if row.retention is not None:
            found[f"{row.model}.retention"] = row.retention
    for name, spread in spreads.items():
        if len(spread.values) > 1:
            found |= {f"{name}.report_mean": spread.mean, f"{name}.report_sd": spread.sd}
    return found
