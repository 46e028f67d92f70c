"""Which loss, layer map and weight? Compare one student with itself trained on logits alone.

    python benchmarks/studies/objectives.py RECIPE [--set KEY=VALUE ...] [--seeds 3]
        [--only "logits;hidden"] [--texts 10000 --winners 3] [--student NAME] [--threads 1]

The grid is `LOGITS`, `LAYERS`, `MAPS` and `WEIGHTS` below (after arXiv 2308.13958). Around
`CENTRE` and the recipe's own loss on logits, one of the four varies at a time. Teacher and transfer
set are computed once. `--texts` trains on a fixed part of the transfer set, and `--winners` trains
the best variants, by the validation split, on all texts.

Each training is a line of runs/NAME/objectives/runs.jsonl, with a key of everything that decides
its weights. An interrupted study resumes after the last line. The tables go to stdout. `kl T=1`
and `soft_ce` have the same gradient; they differ by rounding.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import click
import numpy as np
from kdedge.benchmarks.studies._experiments import (
    ResultLog,
    Rows,
    Scores,
    StudyArguments,
    TrainingVariant,
    baseline,
    study_command,
    train_all,
)
from kdedge.benchmarks.studies._variant_tables import VariantRow, table

from kdedge.cli.main import main
from kdedge.distillation.student_training import DistillContext
from kdedge.errors import UsageError
from kdedge.evaluation.bootstrap import TAIL
from kdedge.recipe import ObjectiveConfig, StudentConfig, TinyBertConfig
from kdedge.recipe.checks import reject_auto_size
from kdedge.run.progress import Progress

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
MAPS = ("uniform", "first", "last", "skip")
WEIGHTS = ("1", "0.1", "10")
CENTRE = ("hidden mse", "uniform", "1")
"""Layer loss, map and weight: two of them keep these values while the third varies."""

PART_SEED = 0
"""Seeds the choice of the texts for `--texts`."""


@dataclass(frozen=True)
class GridCell:
    """One objective of the grid; `layers` is "" for logits alone."""

    logits: str
    layers: str = ""
    layer_map: str = ""
    weight: str = ""

    @property
    def name(self) -> str:
        """Such as `logits mse`, or `hidden cosine, last, 0.1, mse`."""
        if not self.layers:
            return f"logits {self.logits}"
        if not self.weight:
            return self.layers
        return ", ".join((self.layers, self.layer_map, self.weight, self.logits))

    def objective(self, base: ObjectiveConfig) -> ObjectiveConfig:
        """Add this cell's terms to the recipe's objective; keep its logit and label weights."""
        kind, _, temperature = self.logits.partition(" T=")
        changes: dict[str, Any] = {"logits": kind, "temperature": float(temperature or 1.0)}
        if self.layers:
            changes |= self._layer_terms()
        return ObjectiveConfig.model_validate(base.model_dump() | changes)

    def _layer_terms(self) -> dict[str, Any]:
        changes: dict[str, Any] = {"layer_map": self.layer_map}
        for part in self.layers.split(" & "):
            term, _, loss = part.partition(" ")
            changes[f"{term}_weight"] = float(self.weight)
            if term != "embedding":
                changes[term] = loss
        return changes


BASELINE = GridCell("–", "baseline")
"""The label-only baseline."""


def cells(centre: str, *, layers: bool) -> list[GridCell]:
    """List the grid, with the logit loss `centre` alone first.

    Args:
        centre: The recipe's loss on logits.
        layers: Whether the student has layers to match.
    """
    alone = [GridCell(logits) for logits in dict.fromkeys((centre, *LOGITS))]
    if not layers:
        return alone
    layer_loss, layer_map, weight = CENTRE
    varied = [(layers, layer_map, weight) for layers in LAYERS]
    varied += [(layer_loss, varied_map, weight) for varied_map in MAPS]
    varied += [(layer_loss, layer_map, varied_weight) for varied_weight in WEIGHTS]
    return alone + [GridCell(centre, *choice) for choice in dict.fromkeys(varied)]


def select(grid: list[GridCell], only: str | None) -> list[GridCell]:
    """Return the reference and the cells whose names start with one of the words in `only`.

    Raises:
        UsageError: If no name starts with one of the words.
    """
    if only is None:
        return grid
    words = tuple(word.strip() for word in only.split(";") if word.strip())
    unused = [word for word in words if not any(cell.name.startswith(word) for cell in grid)]
    if unused or not words:
        known = ", ".join(dict.fromkeys(cell.name.partition(",")[0] for cell in grid))
        raise UsageError(
            "--only takes the beginnings of names, separated by semicolons",
            repr("; ".join(unused) or only),
            f"known: {known}",
        )
    return [grid[0], *(cell for cell in grid[1:] if cell.name.startswith(words))]


def logits_alone(objective: ObjectiveConfig) -> ObjectiveConfig:
    """Return the recipe's losses on logits and labels, without anything that the grid varies."""
    return objective.outputs_alone().model_copy(update={"layer_map": "uniform"})


def logits_name(objective: ObjectiveConfig) -> str:
    return f"kl T={objective.temperature:g}" if objective.logits == "kl" else objective.logits


@dataclass(frozen=True)
class Grid:
    """Trains all cells with the same teacher, student, number of steps and texts."""

    context: DistillContext
    student: StudentConfig
    seeds: tuple[int, ...]
    log: ResultLog
    progress: Progress

    def variant(self, cell: GridCell) -> TrainingVariant:
        if cell is BASELINE:
            return baseline(cell.name, self.context, self.student)
        objective = cell.objective(logits_alone(self.student.objective))
        student = self.student.model_copy(update={"objective": objective})
        return TrainingVariant(cell.name, self.context, student)

    def train(self, grid: list[GridCell]) -> dict[GridCell, Rows]:
        """Train every cell from every seed."""
        variants = [self.variant(cell) for cell in grid]
        rows = train_all(variants, self.seeds, self.log, self.progress)
        return dict(zip(grid, rows, strict=True))


def lines(
    results: Mapping[GridCell, Rows], reference: GridCell, scores: Scores
) -> Iterator[VariantRow]:
    """Yield the reference, the label-only baseline, then the cells in the order of the grid."""
    for cell, rows in results.items():
        name = [cell.layers or "–", cell.layer_map or "–", cell.weight or "–", cell.logits]
        compared = None if cell == reference else scores.against(rows, results[reference])
        yield VariantRow(name, rows, compared)


def summary(results: Mapping[GridCell, Rows], seeds: int) -> str:
    """Explain the verdicts."""
    count = len(results) - 1
    return (
        f"{count} rows against logits alone, {seeds} seed{'s' * (seeds != 1)}. `better` and"
        " `worse`: both intervals exclude 0, so neither these seeds nor these texts explain the"
        f" difference. With this number of comparisons, about {count * TAIL:.1f} in each direction"
        " can still be chance."
    )


def best(results: Mapping[GridCell, Rows], reference: GridCell, count: int) -> list[GridCell]:
    """Select the cells with the highest mean score on the validation split, never on test."""
    scores = {}
    for cell, rows in results.items():
        validation = [row["validation"] for row in rows.values() if "validation" in row]
        if cell not in (reference, BASELINE) and len(validation) == len(rows):
            scores[cell] = statistics.mean(validation)
    return sorted(scores, key=lambda cell: -scores[cell])[:count]


def part_of(context: DistillContext, texts: int | None) -> DistillContext:
    """Reduce the transfer set to a fixed choice of `texts` texts, in their order."""
    if texts is None or texts >= len(context.transfer):
        return context
    rows = np.random.default_rng(PART_SEED).permutation(len(context.transfer))[:texts]
    return replace(context, transfer=context.transfer.take(np.sort(rows)))


@study_command
@click.option("--only", help='Beginnings of names, separated by semicolons: "logits;hidden mse".')
@click.option(
    "--texts", type=click.IntRange(min=1), help="Train on a fixed choice of this many texts."
)
@click.option(
    "--winners",
    type=click.IntRange(min=0),
    default=0,
    help="Then train this many of the best, by the validation split, on all texts.",
)
@click.option("--student")
def study(
    arguments: StudyArguments,
    only: str | None,
    texts: int | None,
    winners: int,
    student: str | None,
) -> None:
    """Train, compare, and print the tables."""
    config = arguments.student(student)
    if isinstance(config, TinyBertConfig):
        config = config.model_copy(update={"layers_first": None})
    recipe = arguments.recipe
    reject_auto_size(recipe)
    with arguments.prepared() as (run, context, teacher):
        part = part_of(context, texts)
        if winners and part is context:
            raise UsageError(
                "--winners trains the best again on more texts",
                f"all {len(context.transfer)} texts are in use",
                "give --texts a smaller number",
            )
        log = ResultLog(run.folder / "objectives")
        grid = Grid(part, config, arguments.seeds, log, arguments.progress)
        layers = isinstance(config, TinyBertConfig)
        selected = select(cells(logits_name(config.objective), layers=layers), only)
        if recipe.task.kind == "regression":
            selected = [cell for cell in selected if cell.logits == "mse"]
        reference = selected[0]
        print(f"# {recipe.name}: losses, layer maps and weights\n")
        print(f"Teacher: {teacher.metric} {teacher.test:.4f} on {len(context.task.test):,} texts.")
        results = grid.train([reference, BASELINE, *selected[1:]])
        _show(grid, results, reference, teacher.test)
        if winners:
            whole = replace(grid, context=context)
            again = [reference, BASELINE, *best(results, reference, winners)]
            _show(whole, whole.train(again), reference, teacher.test)


def _show(
    grid: Grid, results: Mapping[GridCell, Rows], reference: GridCell, teacher: float
) -> None:
    if not any("test" in row for row in results[reference].values()):
        raise UsageError(
            "the reference of the study cannot be trained",
            next(iter(results[reference].values()))["why"],
            "correct the recipe",
        )
    task = grid.context.task
    rows = lines(results, reference, Scores(task, grid.log))
    names = ["layers", "map", "weight", "logits"]
    print(f"\n## {len(grid.context.transfer):,} texts\n")
    print(table(names, task.spec.metric, "less logits alone", rows, teacher))
    print(f"\n{summary(results, len(grid.seeds))}")


if __name__ == "__main__":
    main(study)
