"""Many trainings side by side: each kept once it is done, compared with another at equal seeds, on equal texts."""

from __future__ import annotations

import hashlib
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from kdedge.data.task import Task
from kdedge.distillation.student_training import (
    LABELS_ONLY,
    DistillContext,
    stage_inputs,
    training_without_stage,
)
from kdedge.errors import CheckFailed, UsageError
from kdedge.evaluation.bootstrap import bootstrap_rows, bootstrap_scores
from kdedge.evaluation.statistics import PairedDifference, paired_difference
from kdedge.io.atomic import json_text, write_atomic
from kdedge.recipe import BiLstmConfig, ObjectiveConfig, TinyBertConfig
from kdedge.run.progress import Progress

Rows = Mapping[int, Mapping[str, Any]]
"""Seed -> what came of a training: its scores and seconds, or `why` it could not be made."""


@dataclass(frozen=True)
class Variant:
    """One way of teaching: which student, from which context; its own objective and stages say how."""

    name: str
    context: DistillContext
    student: TinyBertConfig | BiLstmConfig

    def stages(self) -> list[ObjectiveConfig]:
        """What each stage of the training matches, in order."""
        if isinstance(self.student, TinyBertConfig) and self.student.layers_first:
            return [self.student.objective.layers_alone(), self.student.objective.answers_alone()]
        return [self.student.objective]

    def key(self, seed: int, transfer: str) -> str:
        """A hash of all that decides the weights; transfer: a hash of the texts. The number of threads only rounds otherwise, and is no part of it."""
        *before, last = self.stages()
        inputs = stage_inputs(self.context, self.student, last) | {
            "before": [objective.model_dump(mode="json") for objective in before],
            "transfer": transfer,
            "seed": seed,
        }
        return hashlib.sha256(json_text(inputs).encode()).hexdigest()[:16]

    def train(self, seed: int, folder: Path) -> dict[str, Any]:
        """Train from a seed; returns metric, validation and report, and leaves test_logits.npy in the folder."""
        context = replace(
            self.context, recipe=self.context.recipe.model_copy(update={"student_seed": seed})
        )
        result = training_without_stage(context, self.student, folder)(folder)
        return {name: result[name] for name in ("metric", "validation", "test")}


def baseline(name: str, context: DistillContext, student: TinyBertConfig | BiLstmConfig) -> Variant:
    """The same student on the labelled texts, by their labels alone."""
    context = replace(context, transfer=context.transfer.take(context.transfer.texts.labelled))
    changes: dict[str, Any] = {"objective": LABELS_ONLY} | (
        {"layers_first": None} if isinstance(student, TinyBertConfig) else {}
    )
    return Variant(name, context, student.model_copy(update=changes))


class ResultLog:
    """The finished trainings of a study: a line each, and their logits (N, C) on the test split beside it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.file = folder, folder / "runs.jsonl"
        self.rows: dict[str, dict[str, Any]] = {row["key"]: row for row in self._read()}

    def _read(self) -> Iterator[dict[str, Any]]:
        """The lines that are whole; the last one may have been cut off while it was written, and goes."""
        text = self.file.read_text(encoding="utf-8") if self.file.exists() else ""
        whole, _, torn = text.rpartition("\n")
        if torn:
            write_atomic(self.file, whole + "\n" if whole else "")
        yield from map(json.loads, whole.splitlines())

    def add(self, row: dict[str, Any], logits: Path | None) -> None:
        if logits:
            shutil.copyfile(logits, self.logits_file(row["key"]))
        self.rows[row["key"]] = row
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")

    def logits_file(self, key: str) -> Path:
        return self.folder / f"{key}.npy"


def train_all(
    variants: Sequence[Variant], seeds: Sequence[int], ledger: ResultLog, progress: Progress
) -> list[Rows]:
    """Every variant from every seed, seed by seed, those of the ledger kept; in the order of the variants."""
    hashes = {id(variant.context): variant.context.transfer.content_hash() for variant in variants}
    keys = {
        (i, seed): variants[i].key(seed, hashes[id(variants[i].context)])
        for seed, i in product(seeds, range(len(variants)))
    }
    missing = [place for place, key in keys.items() if key not in ledger.rows]
    if len(missing) < len(keys):
        progress.say(f"{len(keys) - len(missing)} of {len(keys)} trainings are kept")
    progress.start("trainings", len(missing))
    for done, (i, seed) in enumerate(missing, 1):
        row = _one(variants[i], seed, keys[i, seed], ledger)
        told = f"{row['test']:.4f} in {row['seconds']} s" if "test" in row else row["why"]
        progress.advance(done, f"{variants[i].name}, seed {seed}: {told}")
    progress.finish()
    return [{seed: ledger.rows[keys[i, seed]] for seed in seeds} for i in range(len(variants))]


def _one(variant: Variant, seed: int, key: str, ledger: ResultLog) -> dict[str, Any]:
    row: dict[str, Any] = {
        "key": key,
        "cell": variant.name,
        "seed": seed,
        "texts": len(variant.context.transfer),
    }
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        try:
            result = variant.train(seed, Path(folder))
        except (
            UsageError,
            CheckFailed,
        ) as error:  # a map that does not fit, a loss that is not finite
            row |= {"why": error.message}
            ledger.add(row, None)
        else:
            row |= result | {"seconds": round(time.monotonic() - start)}
            ledger.add(row, Path(folder) / "test_logits.npy")
    return row


class Scores:
    """Scores of trainings on the test split and on resamples of its texts."""

    def __init__(self, task: Task, ledger: ResultLog) -> None:
        self.task, self.ledger = task, ledger
        self.draws = bootstrap_rows(len(task.test), seed=0)
        self.known: dict[str, np.ndarray] = {}

    def resampled(self, key: str) -> np.ndarray:
        """(R,) the metric on each resample."""
        if key not in self.known:
            logits = np.load(self.ledger.logits_file(key), allow_pickle=False)
            self.known[key] = bootstrap_scores(
                self.task.spec, logits, self.task.test.labels, self.draws
            )
        return self.known[key]

    def against(self, mine: Rows, theirs: Rows) -> PairedDifference | None:
        """Over the seeds that both came to the end from; None where there is none."""
        both = [seed for seed in mine if "test" in mine[seed] and "test" in theirs[seed]]
        if not both:
            return None
        scores = [np.array([rows[seed]["test"] for seed in both]) for rows in (mine, theirs)]
        draws = [
            np.stack([self.resampled(rows[seed]["key"]) for seed in both])
            for rows in (mine, theirs)
        ]
        return paired_difference(scores[0], scores[1], draws[0], draws[1])


@dataclass(frozen=True)
class TableRow:
    """A variant in a table: its leading cells, its trainings, and what a comparison gave; None for the reference itself, or where no seed came to the end in both."""

    name: list[str]
    rows: Rows
    compared: PairedDifference | None


def table(
    names: Sequence[str], metric: str, compared: str, lines: Iterable[TableRow], teacher: float
) -> str:
    """Markdown. names: heads of the leading cells; compared: of the comparison's mean; teacher: its score.

    A variant that could not be trained tells why; one that failed from some seeds, from how many.
    """
    heads = [
        metric,
        "of the teacher",
        "validation",
        compared,
        "95 % over seeds",
        "95 % over texts",
        "verdict",
        "seconds",
    ]
    sides = ["---", *["--:"] * (len(names) + 3), "---", "---", "---", "--:"]
    told = [[*names, *heads], sides, *([*line.name, *_cells(line, teacher)] for line in lines)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in told)


def _cells(line: TableRow, teacher: float) -> list[str]:
    finished = [row for row in line.rows.values() if "test" in row]
    if not finished:
        return [*["–"] * 6, next(iter(line.rows.values()))["why"], "–"]
    scores = {name: [row[name] for row in finished] for name in ("test", "validation", "seconds")}
    against = line.compared.cells() if line.compared else ["–"] * 4
    failed = len(line.rows) - len(finished)
    against[-1] += f"; {failed} failed" if failed else ""
    mean = {name: statistics.mean(values) for name, values in scores.items()}
    return [
        spread(scores["test"]),
        f"{100 * mean['test'] / teacher:.1f} %",
        f"{mean['validation']:.4f}",
        *against,
        f"{mean['seconds']:.0f}",
    ]


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation, where there are two values or more."""
    return f"{statistics.mean(values):.4f}" + (
        f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    )
