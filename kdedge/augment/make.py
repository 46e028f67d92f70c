"""The stage `augment/`: every source asked, shard by shard, until it has given what is wanted; each text through the gates.

augment/texts.parquet  text, pair, origin, row (training example it was made from), surprise; in the order in which a smaller set takes them
augment/stage.json     inputs, counts and speeds
While it is made, each source's shards stand beside: a pure function of seed, source and number, so a build goes on where it was cut off.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kdedge.augment import TransferTexts, no_labels
from kdedge.augment.gates import Sieve
from kdedge.augment.source import Made, Source
from kdedge.data.task import Task
from kdedge.processes import main_does
from kdedge.progress import SILENT, Progress
from kdedge.recipe import Augment
from kdedge.rundir import read_stage, stage

TEXTS_FILE = "texts.parquet"
PATIENCE = 3
"""A source is asked for at most so many times the texts that are wanted of it: most of what it makes may not pass."""


def make_texts(
    recipe: Augment,
    task: Task,
    sources: list[Source],
    sieve: Sieve,
    folder: Path,
    inputs: dict[str, Any],
    *,
    seed: int = 0,
    force: bool = False,
    progress: Progress = SILENT,
    weights: np.ndarray | None = None,
    size: float | None = None,
) -> TransferTexts:
    """The stage `augment/`: made texts without labels, in an order of which every beginning holds all sources alike.

    weights: (N,) how often each training text is to be started from, in proportion; None: all alike.
    size: made texts per training text, in all sources together.
    """
    wanted = math.ceil((size if size is not None else largest_size(recipe)) * len(task.train) / len(sources))
    inputs = {**inputs, "wanted": wanted, "weights": None if weights is None else hashlib.sha256(weights.tobytes()).hexdigest()}

    def make(part: Path) -> dict[str, Any]:
        return main_does(lambda: _make_all(recipe, task, sources, sieve, part, wanted, seed, progress, weights)) or {}

    stage(folder, inputs, make, force=force, progress=progress)
    return read_made(folder, task)


def largest_size(recipe: Augment) -> float:
    """Made texts per training text that a run needs at most: `auto` chooses among those of the curve."""
    return max(recipe.curve) if recipe.size == "auto" else recipe.size


def read_made(folder: Path, task: Task) -> TransferTexts:
    """The texts of a finished stage `augment/`."""
    read_stage(folder)
    table = pq.read_table(folder / TEXTS_FILE)
    columns = {name: tuple(table.column(name).to_pylist()) for name in ("text", "pair", "origin")}
    pairs = columns["pair"] if task.spec.pair else None
    return TransferTexts(columns["text"], pairs, columns["origin"], no_labels(len(table), task.spec.kind, task.spec.outputs))


def _make_all(
    recipe: Augment, task: Task, sources: list[Source], sieve: Sieve, part: Path, wanted: int, seed: int, progress: Progress, weights: np.ndarray | None
) -> dict[str, Any]:
    kept: dict[str, list[Made]] = {}
    counts: dict[str, Any] = {}
    for source in sources:
        progress.start(f"new texts: {source.origin}", wanted)
        mine: list[Made] = []
        tried, seconds = 0, 0.0
        for shard in _shards(recipe, source, part, wanted, seed, weights):
            tried += len(shard.texts)
            seconds += shard.seconds
            mine += [made for made in shard.texts if sieve.admit(made, source.origin)]
            progress.advance(min(len(mine), wanted))
            if len(mine) >= wanted:
                break
        progress.finish()
        kept[source.origin] = mine[:wanted]
        refused = {reason: count for (origin, reason), count in sorted(sieve.refused.items()) if origin == source.origin}
        counts[source.origin] = {"wanted": wanted, "made": tried, "refused": refused, "kept": len(kept[source.origin])}
        progress.say(_told(source.origin, counts[source.origin], seconds))
    _write_texts(_interleaved(kept), part / TEXTS_FILE)
    for shard_file in part.glob("*-*.parquet"):
        shard_file.unlink()
    digest = hashlib.sha256((part / TEXTS_FILE).read_bytes()).hexdigest()
    return {"texts": sum(map(len, kept.values())), "sources": counts, "sha256": digest}


class _Shard:
    """Texts of one source, and the seconds it took to make them."""

    def __init__(self, texts: list[Made], seconds: float) -> None:
        self.texts, self.seconds = texts, seconds


def _shards(recipe: Augment, source: Source, part: Path, wanted: int, seed: int, weights: np.ndarray | None) -> Iterator[_Shard]:
    for number in range(math.ceil(PATIENCE * wanted / recipe.shard_size)):
        path = part / f"{source.origin}-{number:05d}.parquet"
        if not path.exists():
            chance = np.random.default_rng([seed, number, *source.origin.encode()])
            start = time.monotonic()
            made = source.make(_rows(source.starts, number, recipe.shard_size, seed, source.origin, weights), chance)
            _write_shard(made, time.monotonic() - start, path)
        shard = _read_shard(path)
        yield shard
        if not shard.texts:
            return


def _rows(count: int, number: int, size: int, seed: int, origin: str, weights: np.ndarray | None) -> np.ndarray:
    """(size,) the training rows that a shard starts from: each row once before any comes again, or drawn by weight."""
    if weights is not None and len(weights) == count:
        return np.random.default_rng([seed, 1, number, *origin.encode()]).choice(count, size, p=weights / weights.sum())
    places = np.arange(number * size, (number + 1) * size)
    orders = {turn: np.random.default_rng([seed, 2, turn, *origin.encode()]).permutation(count) for turn in set((places // count).tolist())}
    return np.array([orders[int(place // count)][place % count] for place in places])


def _interleaved(kept: dict[str, list[Made]]) -> list[tuple[str, Made]]:
    """The texts of all sources, each spread evenly over the whole."""
    placed = [((i + 0.5) / len(texts), turn, origin, made) for turn, (origin, texts) in enumerate(kept.items()) for i, made in enumerate(texts)]
    return [(origin, made) for _, _, origin, made in sorted(placed, key=lambda item: item[:2])]


def _table(texts: list[Made]) -> dict[str, pa.Array]:
    return {
        "text": pa.array([made.text for made in texts], pa.string()),
        "pair": pa.array([made.pair for made in texts], pa.string()),
        "row": pa.array([made.row for made in texts], pa.int64()),
        "surprise": pa.array([made.surprise for made in texts], pa.float32()),
    }


def _write_texts(texts: list[tuple[str, Made]], path: Path) -> None:
    origins = pa.array([origin for origin, _ in texts], pa.string())
    pq.write_table(pa.table({**_table([made for _, made in texts]), "origin": origins}), path, compression="zstd")


def _write_shard(texts: list[Made], seconds: float, path: Path) -> None:
    """Whole or absent: written beside, then renamed."""
    table = pa.table(_table(texts)).replace_schema_metadata({"seconds": str(seconds)})
    pq.write_table(table, path.with_suffix(".part"), compression="zstd")
    path.with_suffix(".part").replace(path)


def _read_shard(path: Path) -> _Shard:
    table = pq.read_table(path)
    columns = {name: table.column(name).to_pylist() for name in ("text", "pair", "row", "surprise")}
    texts = [Made(*values) for values in zip(columns["text"], columns["pair"], columns["row"], columns["surprise"], strict=True)]
    return _Shard(texts, float(table.schema.metadata[b"seconds"]))


def _told(origin: str, counts: dict[str, Any], seconds: float) -> str:
    refused = ", ".join(f"{reason} {count:,}" for reason, count in counts["refused"].items())
    speed = f"{counts['made'] / seconds:,.0f} texts/s" if seconds else "no time"
    return f"augment: {origin}: {counts['made']:,} made at {speed}, {counts['kept']:,} kept of {counts['wanted']:,} wanted; refused: {refused or 'none'}"
