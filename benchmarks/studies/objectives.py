"""Which loss, which layer map, which weight? One student, one budget, several seeds, each against the same student taught by logits alone.

    python benchmarks/studies/objectives.py RECIPE [--set KEY=VALUE ...] [--seeds 3] [--only "logits;hidden"] [--full]
        [--texts 10000 --winners 3] [--student NAME] [--threads 1]

The grid is `LOGITS`, `LAYERS`, `MAPS` and `WEIGHTS` below (after arXiv 2308.13958). One of the four is varied at a time around
`CENTRE` and the recipe's own loss on logits; `--full` takes the whole cross. Teacher and transfer set are made once. `--texts`
trains on a fixed part of the transfer set, and `--winners` trains the best, by the validation split, again on all of it.

Each training is a line of runs/NAME/objectives/runs.jsonl, found again by all that decides its weights; a study that was cut off
goes on after the last one. The tables go to stdout. `kl T=1` and `soft_ce` have the same gradient: what lies between them is rounding.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import click
import numpy as np
from kdedge.benchmarks.studies._experiments import (
    ResultLog,
    Rows,
    Scores,
    TableRow,
    Variant,
    baseline,
    table,
    train_all,
)

from kdedge.cli.console import ConsoleProgress
from kdedge.cli.main import main
from kdedge.distillation.pipeline import prepare_context
from kdedge.distillation.student_training import DistillContext
from kdedge.distillation.transfer_stage import reject_auto_size
from kdedge.errors import UsageError
from kdedge.evaluation.bootstrap import TAIL
from kdedge.recipe import BiLstmConfig, ObjectiveConfig, Recipe, TinyBertConfig, load_recipe
from kdedge.run.layout import RunDir
from kdedge.run.progress import Progress
from kdedge.run.stage import StageContext, read_stage
from kdedge.run.threads import settle_threads

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
        return (
            ", ".join((self.layers, self.layer_map, self.weight, self.logits))
            if self.weight
            else self.layers
        )

    def objective(self, base: ObjectiveConfig) -> ObjectiveConfig:
        """The recipe's objective with this cell's terms; its weights of logits and labels stay."""
        kind, _, temperature = self.logits.partition(" T=")
        changes: dict[str, Any] = {"logits": kind, "temperature": float(temperature or 1.0)}
        for term, _, loss in (part.partition(" ") for part in self.layers.split(" & ") if part):
            weight = WEIGHTS[self.weight]
            changes |= {} if term == "embedding" else {term: loss}
            changes |= {
                f"{term}_weight": weight["weight"],
                "layer_map": self.layer_map,
                "balanced": weight.get("balanced", False),
            }
            changes["ramp"] = changes.get("ramp", {}) | (
                {term: weight["ramp"]} if "ramp" in weight else {}
            )
        return ObjectiveConfig.model_validate(base.model_dump() | changes)


BASELINE = Cell("–", "baseline")
"""The same student on the labels alone."""


def cells(centre: str, *, full: bool, layers: bool) -> list[Cell]:
    """The grid, logits alone with the loss `centre` first; layers: whether the student has any to match."""
    alone = [Cell(logits) for logits in dict.fromkeys((centre, *LOGITS))]
    if not layers:
        return alone
    loss, layer_map, weight = CENTRE
    if full:
        # The embedding output is matched with itself, whatever the map.
        crossed = [
            rest
            for rest in product(LAYERS, MAPS, WEIGHTS)
            if rest[0] != "embedding mse" or rest[1] == layer_map
        ]
        return alone + [Cell(cell.logits, *rest) for cell in alone for rest in crossed]
    varied = (
        [(one, layer_map, weight) for one in LAYERS]
        + [(loss, one, weight) for one in MAPS]
        + [(loss, layer_map, one) for one in WEIGHTS]
    )
    return alone + [Cell(centre, *rest) for rest in dict.fromkeys(varied)]


def chosen(grid: list[Cell], only: str | None) -> list[Cell]:
    """The reference and the cells whose names begin with one of the words. Raises UsageError for a word that begins none."""
    if only is None:
        return grid
    words = [word.strip() for word in only.split(";") if word.strip()]
    idle = [word for word in words if not any(cell.name.startswith(word) for cell in grid)]
    if idle or not words:
        known = ", ".join(dict.fromkeys(cell.name.partition(",")[0] for cell in grid))
        raise UsageError(
            "--only takes the beginnings of names, separated by semicolons",
            repr("; ".join(idle) or only),
            f"known: {known}",
        )
    return [
        cell
        for i, cell in enumerate(grid)
        if i == 0 or any(cell.name.startswith(word) for word in words)
    ]


def logits_alone(objective: ObjectiveConfig) -> ObjectiveConfig:
    """The recipe's losses on logits and labels, with nothing that the grid varies."""
    return objective.answers_alone().model_copy(
        update={"ramp": {}, "balanced": False, "layer_map": "uniform"}
    )


def logits_name(objective: ObjectiveConfig) -> str:
    return f"kl T={objective.temperature:g}" if objective.logits == "kl" else objective.logits


@dataclass(frozen=True)
class Bench:
    """Where all cells are trained: same teacher, student, budget and texts."""

    context: DistillContext
    student: TinyBertConfig | BiLstmConfig
    seeds: tuple[int, ...]
    ledger: ResultLog
    progress: Progress

    def variant(self, cell: Cell) -> Variant:
        if cell is BASELINE:
            return baseline(cell.name, self.context, self.student)
        return Variant(
            cell.name,
            self.context,
            self.student.model_copy(
                update={"objective": cell.objective(logits_alone(self.student.objective))}
            ),
        )

    def train(self, grid: list[Cell]) -> dict[Cell, Rows]:
        """Every cell from every seed; cell -> seed -> its row."""
        return dict(
            zip(
                grid,
                train_all(
                    [self.variant(cell) for cell in grid], self.seeds, self.ledger, self.progress
                ),
                strict=True,
            )
        )


def lines(made: Mapping[Cell, Rows], reference: Cell, scores: Scores) -> Iterator[TableRow]:
    """The reference, the label-only baseline, then the cells in the order of the grid."""
    for cell, rows in made.items():
        name = [cell.layers or "–", cell.layer_map or "–", cell.weight or "–", cell.logits]
        yield TableRow(
            name, rows, None if cell == reference else scores.against(rows, made[reference])
        )


def summary(made: Mapping[Cell, Rows], seeds: int) -> str:
    """How the verdicts are to be read."""
    count = len(made) - 1
    return (
        f"{count} rows against logits alone, {seeds} seed{'s' * (seeds != 1)}. `better` and `worse`: both intervals exclude 0, so neither these seeds "
        f"nor these texts are luck; with so many comparisons, about {count * TAIL:.1f} in each direction could still be."
    )


def best(made: Mapping[Cell, Rows], reference: Cell, count: int) -> list[Cell]:
    """The cells with the highest mean score on the validation split; the test split chooses nothing."""
    rated = {
        cell: statistics.mean(row["validation"] for row in rows.values())
        for cell, rows in made.items()
        if cell not in (reference, BASELINE) and all("validation" in row for row in rows.values())
    }
    return sorted(rated, key=lambda cell: -rated[cell])[:count]


def part_of(context: DistillContext, texts: int | None) -> DistillContext:
    """The context on so many texts of its transfer set, always the same ones, in their order."""
    if texts is None or texts >= len(context.transfer):
        return context
    rows = np.random.default_rng(PART_SEED).permutation(len(context.transfer))[:texts]
    return replace(context, transfer=context.transfer.take(np.sort(rows)))


def one_student(recipe: Recipe, name: str | None) -> TinyBertConfig | BiLstmConfig:
    """The student of that name, or the first, taught in one stage."""
    named = {Recipe.student_name(student): student for student in recipe.student}
    if name is not None and name not in named:
        raise UsageError("the recipe has no such student", name, f"one of {', '.join(named)}")
    student = named[name] if name else recipe.student[0]
    return (
        student.model_copy(update={"layers_first": None})
        if isinstance(student, TinyBertConfig)
        else student
    )


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE")
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs"))
@click.option("--seeds", type=click.IntRange(min=1), default=3)
@click.option("--only", help='Beginnings of names, separated by semicolons: "logits;hidden mse".')
@click.option(
    "--full", is_flag=True, help="The whole cross of losses, maps and weights: days on a CPU."
)
@click.option(
    "--texts",
    type=click.IntRange(min=1),
    help="Train on so many texts of the transfer set, always the same ones.",
)
@click.option(
    "--winners",
    type=click.IntRange(min=0),
    default=0,
    help="Then train the best, by the validation split, on all texts.",
)
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
    settled, progress = (
        settle_threads(load_recipe(recipe, overrides), runs, threads),
        ConsoleProgress(),
    )
    taught = one_student(settled, student)
    reject_auto_size(settled)
    run = RunDir.create(settled, runs)
    with run.locked():
        context = prepare_context(settled, run, stages=StageContext(progress=progress))
        part = part_of(context, texts)
        if winners and part is context:
            raise UsageError(
                "--winners trains the best again on more texts",
                f"{len(context.transfer)} texts were used",
                "give --texts fewer",
            )
        first = tuple(settled.training_seed + number for number in range(seeds))
        bench = Bench(part, taught, first, ResultLog(run.folder / "objectives"), progress)
        centre = logits_name(taught.objective)
        grid = chosen(cells(centre, full=full, layers=isinstance(taught, TinyBertConfig)), only)
        if settled.task.kind == "regression":
            grid = [cell for cell in grid if cell.logits == "mse"]
        teacher = read_stage(run.teacher)["result"]
        print(
            f"# {settled.name}: losses, layer maps and weights\n\nTeacher: {teacher['metric']} {teacher['test']:.4f} on {len(context.task.test):,} texts."
        )
        made = bench.train([grid[0], BASELINE, *grid[1:]])
        _show(bench, made, grid[0], teacher["test"])
        if winners:
            whole = replace(bench, context=context)
            _show(
                whole,
                whole.train([grid[0], BASELINE, *best(made, grid[0], winners)]),
                grid[0],
                teacher["test"],
            )


def _show(bench: Bench, made: Mapping[Cell, Rows], reference: Cell, teacher: float) -> None:
    if not any("test" in row for row in made[reference].values()):
        raise UsageError(
            "the reference cannot be trained",
            next(iter(made[reference].values()))["why"],
            "mend the recipe; the study compares with it",
        )
    task = bench.context.task
    told = lines(made, reference, Scores(task, bench.ledger))
    drawn = table(
        ["layers", "map", "weight", "logits"], task.spec.metric, "less logits alone", told, teacher
    )
    print(
        f"\n## {len(bench.context.transfer):,} texts\n\n{drawn}\n\n{summary(made, len(bench.seeds))}"
    )


if __name__ == "__main__":
    main(study)
