"""Make the stage `augment/`: new texts from all sources, each accepted by the filters.

augment/texts.arrow  text, pair, row, mean_nll and origin; sources are mixed evenly in any prefix
augment/stage.json   inputs, and counts for each source

While the stage is unfinished its folder also holds the shards of each source.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from kdedge.augment.counts import AugmentResult, SourceCounts
from kdedge.augment.filters import TextFilter
from kdedge.augment.shards import TEXT_FIELDS, ShardPlan, read_texts
from kdedge.augment.source import TextSource
from kdedge.augment.sources import Sources
from kdedge.data.task import Task
from kdedge.io.arrow import blocks_of, map_table, write_table
from kdedge.io.atomic import hash_file, require_hash
from kdedge.io.text_column import TextColumn
from kdedge.run.processes import barrier, is_main
from kdedge.run.progress import Progress
from kdedge.run.stage import DEFAULT_STAGES, StageContext, read_result, stage
from kdedge.runtime.cleaning import CountingCleaner
from kdedge.transfer.texts import TransferTexts, no_labels

TEXTS_FILE = "texts.arrow"

CLEANED_ORIGINS = ("generate", "pool")
"""Sources whose texts are cleaned. Rules and replacement change labelled texts, which `data.clean`
cleans or leaves as they are."""

ATTEMPTS_PER_TEXT = 3
"""A source gets at most this many rows per text of its target: filters may reject most texts."""


def make_texts(
    sources: Sources,
    folder: Path,
    *,
    size: float,
    seed: int = 0,
    stages: StageContext = DEFAULT_STAGES,
) -> TransferTexts:
    """Run the stage `augment/` in `folder` and return its unlabelled texts.

    Sources do not start from training texts whose length the filters reject.

    Args:
        size: Number of new texts per training text, from all sources together.
    """

    def make(part: Path) -> dict[str, Any]:
        return _Collector(sources, size, seed, part, stages.progress).make().to_json()

    stage(folder, sources.inputs | {"size": size}, make, stages=stages)
    return read_augmented_texts(folder, sources.task)


def read_augmented_texts(folder: Path, task: Task) -> TransferTexts:
    """Read the texts of a finished stage `augment/`.

    Raises:
        IntegrityError: If the file is not the one that the stage wrote.
    """
    require_hash(
        folder / TEXTS_FILE,
        read_result(folder, AugmentResult).sha256,
        "the set of new texts",
        "remove the folder and run the command again",
    )
    table = map_table(folder / TEXTS_FILE)
    texts = TextColumn(table.column("text"))
    pairs = TextColumn(table.column("pair")) if task.spec.pair else None
    origins = TextColumn(table.column("origin"))
    labels = no_labels(len(table), task.spec.kind, task.spec.outputs)
    return TransferTexts.of(texts, pairs, origins, labels)


class _Collector:
    """Collects the texts of all sources in the folder of an unfinished stage."""

    def __init__(
        self, sources: Sources, size: float, seed: int, folder: Path, progress: Progress
    ) -> None:
        self.sources = sources
        self.seed = seed
        self.folder = folder
        self.progress = progress
        self.text_filter: TextFilter = sources.text_filter()
        self.eligible = self.text_filter.eligible_rows(sources.task.train)
        texts = size * len(sources.task.train)
        self.target = math.ceil(texts / len(sources.sources))

    def make(self) -> AugmentResult:
        texts: dict[str, pa.Table] = {}
        counts: dict[str, SourceCounts] = {}
        for source in self.sources.sources:
            texts[source.origin], counts[source.origin] = self._collect(source)
        barrier()  # every process has read the shards
        if is_main():
            write_table(blocks_of(interleave_sources(texts)), self.folder / TEXTS_FILE)
            for shard_file in self.folder.glob("*-*.parquet"):
                shard_file.unlink()
        barrier()
        return AugmentResult(
            texts=sum(map(len, texts.values())),
            sources=counts,
            sha256=hash_file(self.folder / TEXTS_FILE),
        )

    def _collect(self, source: TextSource) -> tuple[pa.Table, SourceCounts]:
        """Return enough accepted texts of one source, read shard by shard, and its counts."""
        accepted = TEXT_FIELDS.empty_table()
        produced, attempts, seconds = 0, 0, 0.0
        cleaner = self._cleaner(source)
        self.progress.start(f"new texts: {source.origin}", self.target)
        for raw in self._plan(source).read():
            produced += len(raw)
            attempts += int(raw.schema.metadata[b"attempts"])
            seconds += float(raw.schema.metadata[b"seconds"])
            shard = cleaned_texts(raw, cleaner)
            passes = [self.text_filter.accept(text, source.origin) for text in read_texts(shard)]
            passing = shard.replace_schema_metadata().filter(pa.array(passes, pa.bool_()))
            accepted = pa.concat_tables([accepted, passing])
            self.progress.advance(min(len(accepted), self.target))
            if len(accepted) >= self.target:
                break
        self.progress.finish()
        counts = SourceCounts(
            target=self.target,
            attempts=attempts,
            produced=produced,
            rejected=self.text_filter.rejected_by_reason(source.origin),
            unused=max(0, len(accepted) - self.target),
            used=min(len(accepted), self.target),
            cleaned=cleaner.counts(),
        )
        self.progress.say(counts.summary(source.origin, seconds))
        return accepted[: self.target], counts

    def _cleaner(self, source: TextSource) -> CountingCleaner:
        is_cleaned = source.origin in CLEANED_ORIGINS
        return CountingCleaner(self.sources.clean if is_cleaned else ())

    def _plan(self, source: TextSource) -> ShardPlan:
        rows = np.arange(source.num_rows)
        max_attempts = source.num_rows
        if source.reuses_rows:
            rows = self.eligible
            max_attempts = ATTEMPTS_PER_TEXT * self.target
        return ShardPlan(
            source=source,
            folder=self.folder,
            rows=rows,
            max_attempts=max_attempts,
            shard_size=self.sources.recipe.shard_size,
            seed=self.seed,
        )


def cleaned_texts(shard: pa.Table, cleaner: CountingCleaner) -> pa.Table:
    """Return a shard with clean texts; without cleaning steps, return it unchanged."""
    if not cleaner.changed:
        return shard
    for name in ("text", "pair"):
        column = shard.schema.get_field_index(name)
        texts = []
        for text in shard.column(name).to_pylist():
            texts.append(None if text is None else cleaner.clean(text))
        shard = shard.set_column(column, shard.field(name), pa.array(texts, pa.large_string()))
    return shard


def interleave_sources(texts: dict[str, pa.Table]) -> pa.Table:
    """Merge the texts of all sources, evenly mixed, into one table with a column `origin`."""
    tables = []
    positions = []
    for origin, table in texts.items():
        origins = pa.array([origin] * len(table), pa.string())
        tables.append(table.append_column("origin", origins))
        positions.append((np.arange(len(table)) + 0.5) / max(1, len(table)))
    order = np.argsort(np.concatenate(positions), kind="stable")
    return pa.concat_tables(tables).take(pa.array(order))
