"""Generate texts from prompts, filter them, and let the teacher label them: two stages each."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from kdedge.augment.counts import AugmentResult, SourceCounts, read_source_counts
from kdedge.augment.filters import TextFilter
from kdedge.augment.generate import GenerateSource
from kdedge.augment.make import (
    TEXTS_FILE,
    cleaned_texts,
    interleave_sources,
    read_augmented_texts,
)
from kdedge.augment.shards import ShardPlan, read_texts
from kdedge.augment.sources import Sources, build_sources
from kdedge.data.task import Split
from kdedge.distillation.student_training import DistillContext
from kdedge.errors import UsageError
from kdedge.io.arrow import blocks_of, write_table
from kdedge.io.atomic import hash_file
from kdedge.recipe import Recipe
from kdedge.run.stage import stage
from kdedge.runtime.cleaning import CountingCleaner
from kdedge.teacher.finetune import teacher_hash
from kdedge.transfer.dataset import TransferBuilder, TransferSet
from kdedge.transfer.texts import joined

ORIGIN = GenerateSource.origin


@dataclass(frozen=True)
class Prompts:
    """Texts that prompts are taken from, and the rows of one pass over them."""

    split: Split
    rows: np.ndarray

    def content_hash(self) -> str:
        digest = hashlib.sha256(self.split.content_hash().encode())
        digest.update(np.ascontiguousarray(self.rows, np.int64))
        return digest.hexdigest()


@dataclass(frozen=True)
class Candidates:
    """Generated texts that passed the filters, with the teacher's logits.

    Attributes:
        generated: Number of prompts that were continued.
    """

    transfer: TransferSet
    generated: int


@dataclass(frozen=True)
class CandidateMaker:
    """Makes candidates in the folder of a study.

    Attributes:
        context: Its task is filtered against, its teacher labels.
        count: Number of prompts of each call; whole shards are generated.
    """

    context: DistillContext
    sources: Sources
    folder: Path
    count: int

    @classmethod
    def prepare(
        cls, recipe: Recipe, context: DistillContext, folder: Path, count: int
    ) -> CandidateMaker:
        """Prepare the generator as the stage `generator/` of the run.

        Raises:
            UsageError: If the recipe has no [augment.generate].
        """
        augment = recipe.augment_in_use
        if augment is None or augment.generate is None:
            raise UsageError(
                "this study generates texts",
                "the recipe has no [augment.generate]",
                "add the table to the recipe",
            )
        generate_alone = augment.model_copy(update={"rules": None, "replace": None, "pool": None})
        sources = build_sources(
            recipe.model_copy(update={"augment": generate_alone}),
            context.task,
            context.teacher,
            teacher_hash(context.run),
            context.run.generator,
            stages=context.stages,
        )
        return cls(context, sources, folder, count)

    def training_prompts(self) -> Prompts:
        """Return the training texts whose length the filters allow."""
        train = self.context.task.train
        return Prompts(train, self.sources.text_filter().eligible_rows(train))

    def make(
        self, name: str, prompts: Prompts, seed: int, earlier: Sequence[TransferSet]
    ) -> Candidates:
        """Run the stages `name` (generate and filter) and `name-labelled`.

        Args:
            earlier: Texts that must not be generated again, nor near duplicates of them.
        """
        folder = self.folder / name
        inputs = {
            **self.sources.inputs,
            "prompts": prompts.content_hash(),
            "candidates": self.count,
            "earlier": [texts.content_hash() for texts in earlier],
            "seed": seed,
        }

        def make(part: Path) -> dict[str, Any]:
            return self._generate(self._plan(prompts, seed, part), earlier, part)

        context = self.context
        stage(folder, inputs, make, stages=context.stages)
        texts = read_augmented_texts(folder, context.task)
        builder = TransferBuilder(
            context.recipe.transfer, context.teacher, teacher_hash(context.run)
        )
        labelled = builder.build(texts, self.folder / f"{name}-labelled", stages=context.stages)
        return Candidates(labelled, read_source_counts(folder)[ORIGIN].attempts)

    def _plan(self, prompts: Prompts, seed: int, part: Path) -> ShardPlan:
        (source,) = self.sources.sources
        assert isinstance(source, GenerateSource)
        return ShardPlan(
            source=replace(source, task=replace(source.task, train=prompts.split)),
            folder=part,
            rows=prompts.rows,
            max_attempts=self.count,
            shard_size=min(self.count, self.sources.recipe.shard_size),
            seed=seed,
        )

    def _generate(
        self, plan: ShardPlan, earlier: Sequence[TransferSet], part: Path
    ) -> dict[str, Any]:
        """Write the accepted texts in the form of the stage `augment/`; return its result."""
        text_filter = self.sources.text_filter()
        remember(earlier, text_filter)
        cleaner = CountingCleaner(self.sources.clean)
        progress = self.context.stages.progress
        accepted, attempts, produced = [], 0, 0
        progress.start(f"candidates: {part.stem}", self.count)
        for raw in plan.read():
            attempts += int(raw.schema.metadata[b"attempts"])
            produced += len(raw)
            shard = cleaned_texts(raw, cleaner)
            passes = [text_filter.accept(text, ORIGIN) for text in read_texts(shard)]
            accepted.append(shard.replace_schema_metadata().filter(pa.array(passes, pa.bool_())))
            progress.advance(min(attempts, self.count))
        progress.finish()
        table = interleave_sources({ORIGIN: pa.concat_tables(accepted)})
        write_table(blocks_of(table), part / TEXTS_FILE)
        for shard_file in part.glob(f"{ORIGIN}-*.parquet"):
            shard_file.unlink()
        counts = SourceCounts(
            target=self.count,
            attempts=attempts,
            produced=produced,
            rejected=text_filter.rejected_by_reason(ORIGIN),
            unused=0,
            used=len(table),
            cleaned=cleaner.counts(),
        )
        result = AugmentResult(len(table), {ORIGIN: counts}, hash_file(part / TEXTS_FILE))
        return result.to_json()


def remember(earlier: Sequence[TransferSet], text_filter: TextFilter) -> None:
    """Let the filter reject copies of these texts."""
    for transfer in earlier:
        for row, text in enumerate(transfer.texts.texts):
            pair = transfer.texts.pairs[row] if transfer.texts.pairs is not None else None
            text_filter.seen.add(text, pair)


def together(sets: Sequence[TransferSet]) -> TransferSet:
    """Join at least one set, in order."""
    texts = sets[0].texts
    for other in sets[1:]:
        texts = joined(texts, other.texts)
    return TransferSet(texts, np.concatenate([transfer.logits for transfer in sets]))
