"""The stage `augment/`: every source asked, shard by shard, until it has given what is wanted; each text through the filters.

augment/texts.arrow  text, pair, origin, row (training example it was made from), surprise; in the order in which a smaller set takes them
augment/stage.json   inputs, counts and speeds
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

from kdedge.augment.filters import TextFilter
from kdedge.augment.source import AugmentedText, Source
from kdedge.data.task import Task
from kdedge.io.arrow import blocks_of, map_table, write_table
from kdedge.io.atomic import hash_file, require_hash
from kdedge.io.text_column import TextColumn
from kdedge.recipe import AugmentConfig
from kdedge.run.processes import barrier, is_main, processes, rank
from kdedge.run.progress import Progress
from kdedge.run.stage import DEFAULT_STAGES, StageContext, read_stage, stage
from kdedge.transfer.texts import TransferTexts, no_labels

TEXTS_FILE = "texts.arrow"
LAYOUT = 2
"""Of the files of this stage; 1 was a parquet file."""
TEXTS = pa.schema(
    [
        ("text", pa.large_string()),
        ("pair", pa.large_string()),
        ("row", pa.int64()),
        ("surprise", pa.float32()),
    ]
)
"""The fields of `Made`, in order."""
PATIENCE = 3
"""A source is asked for at most so many times the texts that are wanted of it: most of what it makes may not pass."""


def make_texts(
    recipe: AugmentConfig,
    task: Task,
    sources: list[Source],
    sieve: TextFilter,
    folder: Path,
    inputs: dict[str, Any],
    *,
    seed: int = 0,
    stages: StageContext = DEFAULT_STAGES,
    weights: np.ndarray | None = None,
    size: float | None = None,
) -> TransferTexts:
    """The stage `augment/`: made texts without labels, in an order of which every beginning holds all sources alike.

    Training texts of a length that the filters reject are not started from.
    weights: (N,) how often each training text is to be started from, in proportion; None: all alike.
    size: made texts per training text, in all sources together.
    """
    wanted = math.ceil(
        (size if size is not None else largest_size(recipe)) * len(task.train) / len(sources)
    )
    inputs = {
        **inputs,
        "layout": LAYOUT,
        "wanted": wanted,
        "weights": None if weights is None else hashlib.sha256(weights.tobytes()).hexdigest(),
    }

    def make(part: Path) -> dict[str, Any]:
        return _make_all(recipe, task, sources, sieve, part, wanted, seed, stages.progress, weights)

    stage(folder, inputs, make, stages=stages)
    return read_augmented_texts(folder, task)


def largest_size(recipe: AugmentConfig) -> float:
    """Made texts per training text that a run needs at most: `auto` chooses among those of the curve."""
    return max(recipe.curve) if recipe.size == "auto" else recipe.size


def read_augmented_texts(folder: Path, task: Task) -> TransferTexts:
    """The texts of a finished stage `augment/`."""
    require_hash(
        folder / TEXTS_FILE,
        read_stage(folder)["result"]["sha256"],
        "the set of made texts",
        "remove the folder and make them again",
    )
    table = map_table(folder / TEXTS_FILE)
    pairs = TextColumn(table.column("pair")) if task.spec.pair else None
    labels = no_labels(len(table), task.spec.kind, task.spec.outputs)
    return TransferTexts.of(
        TextColumn(table.column("text")), pairs, TextColumn(table.column("origin")), labels
    )


def _make_all(
    recipe: AugmentConfig,
    task: Task,
    sources: list[Source],
    sieve: TextFilter,
    part: Path,
    wanted: int,
    seed: int,
    progress: Progress,
    weights: np.ndarray | None,
) -> dict[str, Any]:
    kept: dict[str, pa.Table] = {}
    counts: dict[str, Any] = {}
    starts = sieve.starts(task.train)
    for source in sources:
        progress.start(f"new texts: {source.origin}", wanted)
        mine = [TEXTS.empty_table()]
        asked, tried, passed, seconds = 0, 0, 0, 0.0
        for shard in _shards(
            recipe,
            source,
            part,
            wanted,
            seed,
            starts if source.renewable else np.arange(source.starts),
            weights,
        ):
            tried += len(shard)
            asked += int(shard.schema.metadata[b"asked"])
            seconds += float(shard.schema.metadata[b"seconds"])
            passes = pa.array(
                [sieve.admit(made, source.origin) for made in _read_texts(shard)], pa.bool_()
            )
            mine.append(shard.replace_schema_metadata().filter(passes))
            passed += len(mine[-1])
            progress.advance(min(passed, wanted))
            if passed >= wanted:
                break
        progress.finish()
        kept[source.origin] = pa.concat_tables(mine)[:wanted]
        rejected = {
            reason: count
            for (origin, reason), count in sorted(sieve.rejected.items())
            if origin == source.origin
        }
        counts[source.origin] = {
            "wanted": wanted,
            "asked": asked,
            "made": tried,
            "rejected": rejected,
            "unused": max(0, passed - wanted),
        }
        counts[source.origin]["kept"] = len(kept[source.origin])
        progress.say(_told(source.origin, counts[source.origin], seconds))
    barrier()  # all have read the shards
    if is_main():
        write_table(blocks_of(_interleaved(kept)), part / TEXTS_FILE)
        for shard_file in part.glob("*-*.parquet"):
            shard_file.unlink()
    barrier()
    return {
        "texts": sum(map(len, kept.values())),
        "sources": counts,
        "sha256": hash_file(part / TEXTS_FILE),
    }


def _shards(
    recipe: AugmentConfig,
    source: Source,
    part: Path,
    wanted: int,
    seed: int,
    starts: np.ndarray,
    weights: np.ndarray | None,
) -> Iterator[pa.Table]:
    """Texts of one source; the metadata of each table tells how many were asked for, and the seconds that it took.

    Several processes make a shard each, then all read them in order and judge them alike.
    """
    most = PATIENCE * wanted if source.renewable else len(starts)
    shards = math.ceil(most / recipe.shard_size)

    def make_shard(number: int, path: Path) -> None:
        chance = np.random.default_rng([seed, number, *source.origin.encode()])
        start = time.monotonic()
        rows = _rows(
            starts,
            number,
            recipe.shard_size,
            seed,
            source.origin,
            weights if source.renewable else None,
        )
        rows = rows if source.renewable else rows[: most - number * recipe.shard_size]
        _write_shard(source.make(rows, chance), len(rows), time.monotonic() - start, path)

    for number in range(shards):
        if number % processes() == 0:
            mine = number + rank()
            if mine < shards and not _shard_file(part, source, mine).exists():
                make_shard(mine, _shard_file(part, source, mine))
            barrier()
        shard = pq.read_table(_shard_file(part, source, number))
        yield shard
        if not len(shard) and number >= 2:  # three shards without a text: there will be none
            return


def _shard_file(part: Path, source: Source, number: int) -> Path:
    return part / f"{source.origin}-{number:05d}.parquet"


def _rows(
    starts: np.ndarray, number: int, size: int, seed: int, origin: str, weights: np.ndarray | None
) -> np.ndarray:
    """(size,) the training rows that a shard starts from: each of `starts` once before any comes again, or drawn by weight."""
    if weights is not None and weights[starts].any():
        return np.random.default_rng([seed, 1, number, *origin.encode()]).choice(
            starts, size, p=weights[starts] / weights[starts].sum()
        )
    places, count = np.arange(number * size, (number + 1) * size), len(starts)
    orders = {
        turn: np.random.default_rng([seed, 2, turn, *origin.encode()]).permutation(starts)
        for turn in set((places // count).tolist())
    }
    return np.array([orders[int(place // count)][place % count] for place in places])


def _interleaved(kept: dict[str, pa.Table]) -> pa.Table:
    """The texts of all sources, each spread evenly over the whole, and a column that names their origin."""
    tables = [
        table.append_column("origin", pa.array([origin] * len(table), pa.string()))
        for origin, table in kept.items()
    ]
    places = np.concatenate(
        [(np.arange(len(table)) + 0.5) / max(1, len(table)) for table in tables]
    )
    return pa.concat_tables(tables).take(pa.array(np.argsort(places, kind="stable")))


def _read_texts(table: pa.Table) -> Iterator[AugmentedText]:
    return (
        AugmentedText(*values)
        for values in zip(*(table.column(name).to_pylist() for name in TEXTS.names), strict=True)
    )


def _write_shard(texts: list[AugmentedText], asked: int, seconds: float, path: Path) -> None:
    """Whole or absent: written beside, then renamed."""
    columns = [[getattr(made, field) for made in texts] for field in TEXTS.names]
    table = pa.table(
        columns, schema=TEXTS.with_metadata({"asked": str(asked), "seconds": str(seconds)})
    )
    pq.write_table(table, path.with_suffix(".part"), compression="zstd")
    path.with_suffix(".part").replace(path)


def _told(origin: str, counts: dict[str, Any], seconds: float) -> str:
    rejected = ", ".join(f"{reason} {count:,}" for reason, count in counts["rejected"].items())
    speed = f" at {counts['made'] / seconds:,.0f} texts/s" if seconds and counts["made"] else ""
    lost = (
        f" ({counts['asked'] - counts['made']:,} more came to nothing)"
        if counts["asked"] > counts["made"]
        else ""
    )
    short = (
        ""
        if counts["kept"] >= counts["wanted"]
        else "; so it is short, and no other source makes up for it"
    )
    kept = f"{counts['kept']:,} kept of {counts['wanted']:,} wanted"
    return f"augment: {origin}: {counts['made']:,} made{speed}{lost}, {kept}; rejected: {rejected or 'none'}{short}"
