"""The transfer set: texts and the teacher's logits, computed once for all students.

transfer/texts.arrow  text, pair, origin and label of the N texts
transfer/logits.npy   the teacher's logits (N, C) float16; after them those of rejected texts
transfer/keys.npy     hashes of (teacher, text, pair), 128 bits each, in the order of the logits
transfer/stage.json   inputs, counts and the SHA-256 of each file, written last

While the teacher labels, the logits are in shards, and an interrupted build continues with the next
shard. Texts and logits are mapped from disk, so memory grows only by the labels and some 30 bytes
per text.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from kdedge.errors import CheckFailed
from kdedge.io.arrow import ROWS, map_table, write_table
from kdedge.io.atomic import hash_file, require_hash
from kdedge.io.text_column import TextColumn
from kdedge.nn.batch_tokens import measure_batch_tokens
from kdedge.nn.batching import Encoded
from kdedge.nn.device import native_precision
from kdedge.nn.inference import BATCH_TOKENS
from kdedge.nn.prefetch import prefetch
from kdedge.nn.text_model import check_finite
from kdedge.recipe import TransferConfig
from kdedge.run.processes import barrier, on_main_process, processes, rank
from kdedge.run.progress import Progress
from kdedge.run.stage import DEFAULT_STAGES, StageContext, read_result, read_stage, stage
from kdedge.teacher.finetune import Teacher
from kdedge.transfer.logit_cache import (
    KEYS_FILE,
    LOGITS_FILE,
    SHARDS,
    LogitCache,
    join_shards,
    map_array,
    read_logits,
    remove_shards,
    shard_keys,
    text_key,
    write_shard,
)
from kdedge.transfer.result import TransferResult
from kdedge.transfer.texts import TransferTexts

TEXTS_FILE = "texts.arrow"
FILES = (TEXTS_FILE, LOGITS_FILE, KEYS_FILE)
FLOAT16_MAX = 65504.0


@dataclass(frozen=True)
class TransferSet:
    """N texts with origins and labels, and the teacher's logits (N, C) float16."""

    texts: TransferTexts
    logits: np.ndarray

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: np.ndarray) -> TransferSet:
        """Return the texts at `rows`, in that order, with their logits."""
        return TransferSet(self.texts.take(rows), self.logits[rows])

    def content_hash(self) -> str:
        """Return the SHA-256 of texts, pairs and logits in order."""
        digest = hashlib.sha256(np.ascontiguousarray(self.logits).data)
        for column in (self.texts.texts, self.texts.pairs or ()):
            update_joined(digest, column, "\x1e")
        return digest.hexdigest()


@dataclass(frozen=True)
class FilterResult:
    """Which of N texts the filters accept, and how many they reject.

    Attributes:
        kept: Whether each text is accepted. *Shape:* (N,) bool
        rejected: Reason -> number of texts.
    """

    kept: np.ndarray
    rejected: dict[str, int]


TeacherFilter = Callable[[TransferTexts, Iterable[np.ndarray]], FilterResult]
"""Filters that need the teacher: N texts and their logits in blocks (n, C) float16 -> result."""


def update_joined(digest: Any, parts: Iterable[str], separator: str) -> None:
    """Update a hash with strings and separators, without joining them in memory."""
    for number, part in enumerate(parts):
        digest.update((separator + part if number else part).encode())


@dataclass(frozen=True)
class Shard:
    """A shard of texts that is ready for the teacher.

    Attributes:
        number: Number of the shard, from 0.
        keys: Key of each text in the logit cache.
        rows: Cached logits (C,) or None for each text; empty if the shard is already on disk.
        texts: The texts without cached logits.
        missing: Their positions in the shard.
        encoded: Their tokens, or None if there are no such texts.
    """

    number: int
    keys: list[str]
    rows: Sequence[np.ndarray | None] = ()
    texts: Sequence[str] = ()
    missing: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    encoded: Encoded | None = None


@dataclass(frozen=True)
class TransferBuilder:
    """Builds transfer sets with one teacher."""

    config: TransferConfig
    teacher: Teacher
    teacher_hash: str
    """Hash of what decides the teacher's logits, without the precision."""
    teacher_filter: TeacherFilter | None = None
    """Decides which labelled texts stay; None keeps all."""
    filter_settings: dict[str, Any] | None = None
    """What decides the filter's result."""

    def build(
        self, texts: TransferTexts, folder: Path, *, stages: StageContext = DEFAULT_STAGES
    ) -> TransferSet:
        """Run the stage `transfer/` in `folder`: the teacher labels every text once.

        Complete shards of an interrupted build are reused, and so are the logits of the same
        teacher in the older set that `folder` replaces.
        """

        def make(part: Path) -> dict[str, Any]:
            self._label(texts, folder, part, stages.progress)
            result = on_main_process(lambda: self._write(texts, part))
            return result.to_json() if result else {}

        stage(folder, self._inputs(texts), make, stages=stages, temporary=SHARDS)
        on_main_process(lambda: remove_shards(folder))
        return read_transfer_set(folder)

    def _inputs(self, texts: TransferTexts) -> dict[str, Any]:
        digest = hashlib.sha256()
        update_joined(digest, self._keys(texts), "\n")
        update_joined(digest, texts.origins, "\n")
        digest.update(np.ascontiguousarray(texts.labels).data)
        return {
            "teacher": self._teacher_key,
            "max_length": self.teacher.max_length,
            "texts": digest.hexdigest(),
            "shard_size": self.config.shard_size,
            "filters": self.filter_settings,
        }

    @property
    def _teacher_key(self) -> str:
        return f"{self.teacher_hash}-{self.config.precision}"

    def _keys(self, texts: TransferTexts) -> Iterator[str]:
        if texts.pairs is None:
            for text in texts.texts:
                yield text_key(self._teacher_key, text, None)
        else:
            for text, pair in zip(texts.texts, texts.pairs, strict=True):
                yield text_key(self._teacher_key, text, pair)

    def _shards(self, texts: TransferTexts) -> int:
        return math.ceil(len(texts) / self.config.shard_size)

    def _label(self, texts: TransferTexts, folder: Path, part: Path, progress: Progress) -> None:
        """Write this process's share of the shards, one shard in memory at a time."""
        start = time.monotonic()
        cache = LogitCache(folder, self.teacher.max_length)
        labelled = 0
        progress.start("the teacher labels the transfer set", len(texts))

        def prepare(number: int) -> Shard:
            return self._prepare_shard(texts, cache, part, number)

        numbers = range(rank(), self._shards(texts), processes())
        on_gpu = self.teacher.model.device.type != "cpu"
        batch_tokens = self.config.batch_tokens
        for shard in prefetch(numbers, prepare, ahead=on_gpu):
            if on_gpu and shard.encoded is not None and batch_tokens is None:
                batch_tokens = self._choose_batch_tokens(shard, progress)
            labelled += self._write_shard(shard, part, batch_tokens or BATCH_TOKENS)
            progress.advance(min((shard.number + 1) * self.config.shard_size, len(texts)))
        progress.finish()
        barrier()
        if labelled:
            seconds = time.monotonic() - start
            line = (
                f"transfer: the teacher labelled {labelled:,} texts in {seconds:.0f} s "
                f"({labelled / seconds:,.0f} texts/s)"
            )
            if processes() > 1:
                line += f" in one of {processes()} processes"
            progress.say(line)

    def _prepare_shard(
        self, texts: TransferTexts, cache: LogitCache, part: Path, number: int
    ) -> Shard:
        """Look up the cached logits of a shard, and tokenize the texts without."""
        first = number * self.config.shard_size
        chosen = texts.take(np.arange(first, min(first + self.config.shard_size, len(texts))))
        keys = list(self._keys(chosen))
        if shard_keys(part, number) == keys:
            return Shard(number, keys)
        rows = [cache.get(key) for key in keys]
        missing = np.array([i for i, row in enumerate(rows) if row is None], np.int64)
        unknown = chosen.take(missing)
        encoded = self.teacher.encode(unknown.texts, unknown.pairs) if len(missing) else None
        return Shard(number, keys, rows, unknown.texts, missing, encoded)

    def _choose_batch_tokens(self, shard: Shard, progress: Progress) -> int:
        assert shard.encoded is not None
        precision = native_precision(self.config.precision, self.teacher.model.device)
        chosen = measure_batch_tokens(
            self.teacher.model, shard.encoded, self.teacher.pad, precision
        )
        if chosen != BATCH_TOKENS:
            progress.say(f"transfer: the teacher reads {chosen:,} tokens at once")
        return chosen

    def _write_shard(self, shard: Shard, part: Path, batch_tokens: int) -> int:
        """Write a shard unless it is complete; return how many texts the teacher labelled."""
        if not shard.rows:
            return 0
        rows = list(shard.rows)
        if shard.encoded is not None:
            for i, row in zip(shard.missing, self._predict(shard, batch_tokens), strict=True):
                rows[i] = row
        logits = np.stack([row for row in rows if row is not None])
        write_shard(part, shard.number, shard.keys, logits)
        return len(shard.missing)

    def _predict(self, shard: Shard, batch_tokens: int) -> np.ndarray:
        """Compute the teacher's logits (n, C) float16 of a shard's texts without cached logits."""
        assert shard.encoded is not None
        logits = self.teacher.predict_encoded(
            shard.encoded, batch_tokens=batch_tokens, precision=self.config.precision
        )
        check_finite(logits, shard.texts)
        largest = np.abs(logits).max(initial=0)
        if largest > FLOAT16_MAX:
            raise CheckFailed(
                "a logit of the teacher does not fit into 16 bits",
                f"{largest:g}",
                "check the teacher's weights",
            )
        return logits.astype(np.float16)

    def _write(self, texts: TransferTexts, part: Path) -> TransferResult:
        """Filter the labelled texts and write the files of the set; return the stage's result."""
        result = FilterResult(np.ones(len(texts), bool), {})
        if self.teacher_filter is not None:
            blocks = (read_logits(part, number) for number in range(self._shards(texts)))
            result = self.teacher_filter(texts, blocks)
        rows = np.flatnonzero(result.kept)
        write_table(_tables(texts, rows), part / TEXTS_FILE)
        join_shards(part, result.kept, self.config.shard_size)
        origins = Counter(texts.origins.take(rows))
        return TransferResult(
            texts=len(rows),
            origins=dict(sorted(origins.items())),
            rejected=result.rejected,
            kept=hashlib.sha256(result.kept.tobytes()).hexdigest(),
            sha256={name: hash_file(part / name) for name in FILES},
        )


def _tables(texts: TransferTexts, rows: np.ndarray) -> Iterator[pa.Table]:
    """Yield the texts at `rows` in tables of `ROWS` rows; at least one table."""
    for start in range(0, max(1, len(rows)), ROWS):
        block = texts.take(rows[start : start + ROWS])
        columns = {
            "text": block.texts.column,
            "origin": block.origins.column,
            "label": _label_column(block.labels),
        }
        if block.pairs is not None:
            columns["pair"] = block.pairs.column
        yield pa.table(columns)


def _label_column(labels: np.ndarray) -> pa.Array:
    if labels.ndim == 1:
        return pa.array(labels)
    return pa.FixedSizeListArray.from_arrays(pa.array(labels.ravel()), labels.shape[1])


def _read_labels(column: pa.ChunkedArray) -> np.ndarray:
    """Return classes (N,) as int64, or float32: scores (N,), or multilabel 0 and 1 (N, C)."""
    if pa.types.is_fixed_size_list(column.type):
        flat = np.concatenate([np.asarray(chunk.flatten(), np.float32) for chunk in column.chunks])
        return flat.reshape(len(column), column.type.list_size)
    dtype = np.int64 if pa.types.is_integer(column.type) else np.float32
    return np.asarray(column.to_numpy(), dtype)


def transfer_hash(folder: Path) -> str:
    """Return a hash of a finished transfer set, for the cache keys of later stages."""
    inputs = read_stage(folder).inputs
    kept = read_result(folder, TransferResult).kept
    return f"{inputs['texts']}+{kept}, {inputs['max_length']} tokens"


def read_transfer_set(folder: Path) -> TransferSet:
    """Open a finished transfer set, memory-mapped.

    Raises:
        IntegrityError: If a file is missing or damaged.
    """
    hashes = read_result(folder, TransferResult).sha256
    for name in FILES:
        hint = "remove the folder and distill again"
        require_hash(folder / name, hashes[name], "the transfer set", hint)
    table = map_table(folder / TEXTS_FILE)
    pairs = TextColumn(table["pair"]) if "pair" in table.column_names else None
    texts = TransferTexts.of(
        TextColumn(table["text"]),
        pairs,
        TextColumn(table["origin"]),
        _read_labels(table["label"]),
    )
    return TransferSet(texts, map_array(folder / LOGITS_FILE)[: len(texts)])
