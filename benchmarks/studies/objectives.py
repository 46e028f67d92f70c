"""Which loss, which layer map, which weight? One student, one budget, several seeds, each against the same student taught by logits alone.

    python benchmarks/studies/objectives.py RECIPE [--set KEY=VALUE ...] [--seeds 3] [--only "logits;hidden"] [--full]
        [--texts 10000 --winners 3] [--student NAME] [--threads 1]

The grid is `LOGITS`, `LAYERS`, `MAPS` and `WEIGHTS` below (after arXiv 2308.13958). One of the four is varied at a time around
`CENTRE` and the recipe's own loss on logits; `--full` takes the whole cross. Teacher and transfer set are made once. `--texts`
trains on a fixed part of the transfer set, and `--winners` trains the best, by the select split, again on all of it.

Each training is a line of runs/NAME/objectives/runs.jsonl, found again by all that decides its weights; a study that was cut off
goes on after the last one. The tables go to stdout. `kl T=1` and `soft_ce` have the same gradient: what lies between them is rounding.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import click
import numpy as np
from kdedge.benchmarks.retention import TAIL, resampled_scores, resamples

from kdedge.console import ConsoleProgress, print_error
from kdedge.distill.command import prepared
from kdedge.distill.seeds import Spread
from kdedge.distill.story import prepare_lesson
from kdedge.distill.teaching import LABELS_ALONE, Lesson, Teaching, what_decides
from kdedge.errors import GateFailed, KdedgeError, UsageError
from kdedge.files import json_text, write_whole
from kdedge.progress import SILENT, Progress
from kdedge.recipe import BiLstm, Objective, Recipe, TinyBert, load_recipe
from kdedge.rundir import Run, read_stage

LOGITS = ("kl T=1", "kl T=2", "kl T=4", "kl T=8", "mse", "cosine", "soft_ce")
LAYERS = (
    "hidden mse",
    "hidden cosine",
    "hidden pkd",
    "hidden cka",
    "attention scores",
    "attention probabilities",
    "attention kl",
    "attention value_relation",
    "attention qk_relation",
    "attention minilm",
    "embedding mse",
    "hidden mse & attention scores & embedding mse",  # TinyBERT, Jiao et al. 2020, eq. 11
)
MAPS = ("uniform", "first", "last", "skip", "learned")
WEIGHTS: dict[str, dict[str, Any]] = {
    "1": {"weight": 1.0},
    "0.1": {"weight": 0.1},
    "10": {"weight": 10.0},
    "balanced": {"weight": 1.0, "balanced": True},
    "ramp 1-0": {"weight": 1.0, "ramp": (1.0, 0.0)},
}
CENTRE = ("hidden mse", "uniform", "1")
"""The layer loss around which maps and weights are varied, the map and the weight of the other layer losses."""

PART_SEED = 0
"""Draws the part of the transfer set that `--texts` asks for."""


@dataclass(frozen=True)
class Cell:
    """One objective of the grid; layers "" is logits alone."""

    logits: str
    layers: str = ""
    layer_map: str = ""
    weight: str = ""

    @property
    def name(self) -> str:
        """`logits mse`, or `hidden cosine, last, 0.1, mse`."""
        if not self.layers:
            return f"logits {self.logits}"
        return ", ".join((self.layers, self.layer_map, self.weight, self.logits)) if self.weight else self.layers

    def objective(self, base: Objective) -> Objective:
        """The recipe's objective with this cell's terms; its weights of logits and labels stay."""
        kind, _, temperature = self.logits.partition(" T=")
        changes: dict[str, Any] = {"logits": kind, "temperature": float(temperature or 1.0)}
        for term, _, loss in (part.partition(" ") for part in self.layers.split(" & ") if part):
            weight = WEIGHTS[self.weight]
            changes |= {} if term == "embedding" else {term: loss}
            changes |= {f"{term}_weight": weight["weight"], "layer_map": self.layer_map, "balanced": weight.get("balanced", False)}
            changes["ramp"] = changes.get("ramp", {}) | ({term: weight["ramp"]} if "ramp" in weight else {})
        return Objective.model_validate(base.model_dump() | changes)


UNDISTILLED = Cell("–", "undistilled")
"""The same student on the labels alone."""


def cells(centre: str, *, full: bool, layers: bool) -> list[Cell]:
    """The grid, logits alone with the loss `centre` first; layers: whether the student has any to match."""
    alone = [Cell(logits) for logits in dict.fromkeys((centre, *LOGITS))]
    if not layers:
        return alone
    loss, layer_map, weight = CENTRE
    if full:
        # The embedding output is matched with itself, whatever the map.
        crossed = [rest for rest in product(LAYERS, MAPS, WEIGHTS) if rest[0] != "embedding mse" or rest[1] == layer_map]
        return alone + [Cell(cell.logits, *rest) for cell in alone for rest in crossed]
    varied = [(one, layer_map, weight) for one in LAYERS] + [(loss, one, weight) for one in MAPS] + [(loss, layer_map, one) for one in WEIGHTS]
    return alone + [Cell(centre, *rest) for rest in dict.fromkeys(varied)]


def chosen(grid: list[Cell], only: str | None) -> list[Cell]:
    """The reference and the cells whose names begin with one of the words. Raises UsageError for a word that begins none."""
    if only is None:
        return grid
    words = [word.strip() for word in only.split(";") if word.strip()]
    idle = [word for word in words if not any(cell.name.startswith(word) for cell in grid)]
    if idle or not words:
        known = ", ".join(dict.fromkeys(cell.name.partition(",")[0] for cell in grid))
        raise UsageError("--only takes the beginnings of names, separated by semicolons", repr("; ".join(idle) or only), f"known: {known}")
    return [cell for i, cell in enumerate(grid) if i == 0 or any(cell.name.startswith(word) for word in words)]


class Ledger:
    """The finished trainings of a study: a line each, and their logits (N, C) on the reported split beside it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.file = folder, folder / "runs.jsonl"
        self.rows: dict[str, dict[str, Any]] = {row["key"]: row for row in self._read()}

    def _read(self) -> Iterator[dict[str, Any]]:
        """The lines that are whole; the last one may have been cut off while it was written, and goes."""
        text = self.file.read_text(encoding="utf-8") if self.file.exists() else ""
        whole, _, torn = text.rpartition("\n")
        if torn:
            write_whole(self.file, whole + "\n" if whole else "")
        yield from map(json.loads, whole.splitlines())

    def add(self, row: dict[str, Any], logits: Path | None) -> None:
        if logits:
            shutil.copyfile(logits, self.logits_file(row["key"]))
        self.rows[row["key"]] = row
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")

    def logits_file(self, key: str) -> Path:
        return self.folder / f"{key}.npy"


@dataclass(frozen=True)
class Bench:
    """Where all cells are trained: same teacher, student, budget and texts."""

    lesson: Lesson
    student: TinyBert | BiLstm
    seeds: tuple[int, ...]
    ledger: Ledger
    progress: Progress

    def objective(self, cell: Cell) -> Objective:
        return LABELS_ALONE if cell is UNDISTILLED else cell.objective(logits_alone(self.student.objective))

    def keys(self, grid: list[Cell]) -> dict[tuple[Cell, int], str]:
        """A hash of all that decides the weights of each training; the number of threads only rounds otherwise, and is no part of it."""
        inputs = what_decides(self.lesson, self.student, LABELS_ALONE, self.lesson.transfer.content_hash())
        found = {}
        for seed, cell in product(self.seeds, grid):
            objective = self.objective(cell)
            mine = inputs | {"objective": objective.model_dump(mode="json", exclude=objective.idle()), "seed": seed}
            found[cell, seed] = hashlib.sha256(json_text(mine).encode()).hexdigest()[:16]
        return found

    def train(self, grid: list[Cell]) -> dict[Cell, dict[int, dict[str, Any]]]:
        """Every cell from every seed, seed by seed, those of the ledger kept; cell -> seed -> its row."""
        keys = self.keys(grid)
        missing = [(cell, seed) for (cell, seed), key in keys.items() if key not in self.ledger.rows]
        if len(missing) < len(keys):
            self.progress.say(f"{len(keys) - len(missing)} of {len(keys)} trainings are kept")
        self.progress.start("trainings", len(missing))
        for done, (cell, seed) in enumerate(missing, 1):
            row = self._one(cell, seed, keys[cell, seed])
            told = f"{row['report']:.4f} in {row['seconds']} s" if "report" in row else row["why"]
            self.progress.advance(done, f"{cell.name}, seed {seed}: {told}")
        self.progress.finish()
        return {cell: {seed: self.ledger.rows[keys[cell, seed]] for seed in self.seeds} for cell in grid}

    def _one(self, cell: Cell, seed: int, key: str) -> dict[str, Any]:
        lesson = replace(self.lesson, recipe=self.lesson.recipe.model_copy(update={"student_seed": seed}))
        row: dict[str, Any] = {"key": key, "cell": cell.name, "seed": seed, "texts": len(lesson.transfer)}
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            teaching = Teaching(lesson, self.student, self.objective(cell), self.student.fit, None, cell.name, SILENT)
            try:
                result = teaching(Path(folder))
            except (UsageError, GateFailed) as error:  # a map that does not fit, a loss that is not finite
                row |= {"why": error.what}
                self.ledger.add(row, None)
            else:
                row |= {name: result[name] for name in ("metric", "select", "report")} | {"seconds": round(time.monotonic() - start)}
                self.ledger.add(row, Path(folder) / "report_logits.npy")
        return row


def logits_alone(objective: Objective) -> Objective:
    """The recipe's losses on logits and labels, with nothing that the grid varies."""
    return objective.answers_alone().model_copy(update={"ramp": {}, "balanced": False, "layer_map": "uniform"})


def logits_name(objective: Objective) -> str:
    return f"kl T={objective.temperature:g}" if objective.logits == "kl" else objective.logits


@dataclass(frozen=True)
class Comparison:
    """A cell's scores on the reported split less the reference's, at equal seeds.

    seeds: 95 % interval of the mean over seeds (Student's t), which says nothing about other texts.
    texts: 95 % interval of the mean over resampled texts (paired bootstrap), which says nothing about other seeds.
    """

    mean: float
    seeds: tuple[float, float]
    texts: tuple[float, float]

    @property
    def verdict(self) -> str:
        """`better` or `worse` where neither other seeds nor other texts could turn it round, else `undecided`."""
        ends = (*self.seeds, *self.texts)
        if any(map(math.isnan, ends)):
            return "one seed"
        return "better" if min(ends) > 0 else "worse" if max(ends) < 0 else "undecided"


def compare(mine: np.ndarray, theirs: np.ndarray, my_draws: np.ndarray, their_draws: np.ndarray) -> Comparison:
    """mine, theirs: (S,) scores by seed; my_draws, their_draws: (S, R) the same on R resamples of the texts."""
    spread = Spread(tuple((mine - theirs).tolist()))
    low, high = np.quantile((my_draws - their_draws).mean(0), [TAIL, 1 - TAIL])
    return Comparison(spread.mean, spread.interval, (float(low), float(high)))


class Scores:
    """Scores of trainings on the reported split and on resamples of its texts."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.report = bench, bench.lesson.task.report
        self.draws = resamples(len(self.report), seed=0)
        self.known: dict[str, np.ndarray] = {}

    def resampled(self, key: str) -> np.ndarray:
        """(R,) the metric on each resample."""
        if key not in self.known:
            logits = np.load(self.bench.ledger.logits_file(key), allow_pickle=False)
            self.known[key] = resampled_scores(self.bench.lesson.task.spec, logits, self.report.labels, self.draws)
        return self.known[key]

    def against(self, mine: dict[int, dict[str, Any]], theirs: dict[int, dict[str, Any]]) -> Comparison | None:
        """Over the seeds that both came to the end from; None where there is none."""
        both = [seed for seed in mine if "report" in mine[seed] and "report" in theirs[seed]]
        if not both:
            return None
        scores = [np.array([rows[seed]["report"] for seed in both]) for rows in (mine, theirs)]
        draws = [np.stack([self.resampled(rows[seed]["key"]) for seed in both]) for rows in (mine, theirs)]
        return compare(scores[0], scores[1], draws[0], draws[1])


def table(bench: Bench, made: dict[Cell, dict[int, dict[str, Any]]], reference: Cell, teacher: float) -> str:
    """Markdown: the reference, the undistilled student, then the cells in the order of the grid."""
    scores, metric = Scores(bench), bench.lesson.task.spec.metric
    lines = [
        f"| layers | map | weight | logits | {metric} | of the teacher | select | less logits alone | 95 % over seeds | 95 % over texts | verdict | seconds |",
        "| --- | --- | --- | --- | --: | --: | --: | --: | --- | --- | --- | --: |",
    ]
    for cell, rows in made.items():
        finished = [row for row in rows.values() if "report" in row]
        name = [cell.layers or "–", cell.layer_map or "–", cell.weight or "–", cell.logits]
        if not finished:
            lines.append("| " + " | ".join([*name, *["–"] * 6, next(iter(rows.values()))["why"], "–"]) + " |")
            continue
        report = [row["report"] for row in finished]
        cells = [*name, spread(report), f"{100 * statistics.mean(report) / teacher:.1f} %", f"{statistics.mean(row['select'] for row in finished):.4f}"]
        against = None if cell == reference else scores.against(rows, made[reference])
        cells += ["–", "–", "–", "reference"] if against is None else _told(against, len(rows) - len(finished))
        lines.append("| " + " | ".join([*cells, f"{statistics.mean(row['seconds'] for row in finished):.0f}"]) + " |")
    return "\n".join(lines)


def _told(found: Comparison, failed: int) -> list[str]:
    intervals = ["–" if math.isnan(low) else f"{low:+.4f} to {high:+.4f}" for low, high in (found.seeds, found.texts)]
    return [f"{found.mean:+.4f}", *intervals, found.verdict + (f"; {failed} failed" if failed else "")]


def spread(values: list[float]) -> str:
    """Mean and standard deviation, where there are two values or more."""
    return f"{statistics.mean(values):.4f}" + (f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else "")


def summary(made: dict[Cell, dict[int, dict[str, Any]]], seeds: int) -> str:
    """How the verdicts are to be read."""
    count = len(made) - 1
    return (
        f"{count} objectives against logits alone, {seeds} seed{'s' * (seeds != 1)}. `better` and `worse`: both intervals exclude 0, so neither these seeds "
        f"nor these texts are luck; with so many comparisons, about {count * TAIL:.1f} in each direction could still be."
    )


def best(made: dict[Cell, dict[int, dict[str, Any]]], reference: Cell, count: int) -> list[Cell]:
    """The cells with the highest mean score on the select split; the reported split chooses nothing."""
    rated = {
        cell: statistics.mean(row["select"] for row in rows.values())
        for cell, rows in made.items()
        if cell not in (reference, UNDISTILLED) and all("select" in row for row in rows.values())
    }
    return sorted(rated, key=lambda cell: -rated[cell])[:count]


def part_of(lesson: Lesson, texts: int | None) -> Lesson:
    """The lesson on so many texts of its transfer set, always the same ones, in their order."""
    if texts is None or texts >= len(lesson.transfer):
        return lesson
    rows = np.random.default_rng(PART_SEED).permutation(len(lesson.transfer))[:texts]
    return replace(lesson, transfer=lesson.transfer.take(np.sort(rows)))


def one_student(recipe: Recipe, name: str | None) -> TinyBert | BiLstm:
    """The student of that name, or the first, taught in one stage."""
    named = {Recipe.student_name(student): student for student in recipe.student}
    if name is not None and name not in named:
        raise UsageError("the recipe has no such student", name, f"one of {', '.join(named)}")
    student = named[name] if name else recipe.student[0]
    return student.model_copy(update={"layers_first": None}) if isinstance(student, TinyBert) else student


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE")
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs"))
@click.option("--seeds", type=click.IntRange(min=1), default=3)
@click.option("--only", help='Beginnings of names, separated by semicolons: "logits;hidden mse".')
@click.option("--full", is_flag=True, help="The whole cross of losses, maps and weights: days on a CPU.")
@click.option("--texts", type=click.IntRange(min=1), help="Train on so many texts of the transfer set, always the same ones.")
@click.option("--winners", type=click.IntRange(min=0), default=0, help="Then train the best, by the select split, on all texts.")
@click.option("--student")
@click.option("--threads", type=click.IntRange(min=1))
def study(
    recipe: Path,
    overrides: tuple[str, ...],
    runs: Path,
    seeds: int,
    only: str | None,
    full: bool,
    texts: int | None,
    winners: int,
    student: str | None,
    threads: int | None,
) -> None:
    """Train, compare, and print the tables."""
    settled, progress = prepared(load_recipe(recipe, overrides), runs, threads), ConsoleProgress()
    taught = one_student(settled, student)
    run = Run.create(settled, runs)
    with run.locked():
        lesson = prepare_lesson(settled, run, progress=progress)
        part = part_of(lesson, texts)
        if winners and part is lesson:
            raise UsageError("--winners trains the best again on more texts", f"{len(lesson.transfer)} texts were used", "give --texts fewer")
        first = tuple(settled.training_seed + number for number in range(seeds))
        bench = Bench(part, taught, first, Ledger(run.folder / "objectives"), progress)
        centre = logits_name(taught.objective)
        grid = chosen(cells(centre, full=full, layers=isinstance(taught, TinyBert)), only)
        if settled.task.kind == "regression":
            grid = [cell for cell in grid if cell.logits == "mse"]
        teacher = read_stage(run.teacher)["result"]
        print(f"# {settled.name}: losses, layer maps and weights\n\nTeacher: {teacher['metric']} {teacher['report']:.4f} on {len(lesson.task.report):,} texts.")
        made = bench.train([grid[0], UNDISTILLED, *grid[1:]])
        _show(bench, made, grid[0], teacher["report"])
        if winners:
            whole = replace(bench, lesson=lesson)
            _show(whole, whole.train([grid[0], UNDISTILLED, *best(made, grid[0], winners)]), grid[0], teacher["report"])


def _show(bench: Bench, made: dict[Cell, dict[int, dict[str, Any]]], reference: Cell, teacher: float) -> None:
    if not any("report" in row for row in made[reference].values()):
        raise UsageError("the reference cannot be trained", next(iter(made[reference].values()))["why"], "mend the recipe; the study compares with it")
    print(f"\n## {len(bench.lesson.transfer):,} texts\n\n{table(bench, made, reference, teacher)}\n\n{summary(made, len(bench.seeds))}")


if __name__ == "__main__":
    try:
        study()
    except KdedgeError as letter:
        print_error(letter.letter())
        sys.exit(letter.exit_code)
