"""The transfer set: texts and what the teacher says of them, labelled once, on disk, for every student.

transfer/texts.arrow  text, pair, origin, label of the N texts, in order
transfer/logits.npy   what the teacher says of them, (N, C) float16; after them, of the texts that its filters rejected
transfer/keys.npy     hashes of (teacher, text, pair), 128 bits each, in the order of the logits
transfer/stage.json   inputs, counts and the SHA-256 of each file, written last
While it is made, the answers stand beside in shards; a build goes on where it was cut off. Texts and logits are mapped, not held in
memory: neither labelling nor a finished set takes more of it for more texts, but for their labels and some 30 bytes each.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from kdedge.errors import CheckFailed
from kdedge.io.arrow import ROWS, map_table, write_table
from kdedge.io.atomic import hash_file, require_hash
from kdedge.io.text_column import TextColumn
from kdedge.recipe import TransferConfig
from kdedge.run.processes import barrier, on_main_process, processes, rank
from kdedge.run.progress import Progress
from kdedge.run.stage import DEFAULT_STAGES, StageContext, read_stage, stage
from kdedge.teacher.finetune import Teacher
from kdedge.transfer.logit_cache import (
    KEYS_FILE,
    LOGITS_FILE,
    LogitCache,
    join_shards,
    map_array,
    read_logits,
    remove_shards,
    shard_keys,
    text_key,
    write_shard,
)
from kdedge.transfer.texts import TransferTexts

TEXTS_FILE = "texts.arrow"
FILES = (TEXTS_FILE, LOGITS_FILE, KEYS_FILE)
LAYOUT = 2
"""Of those files; 1 was shards and a parquet file."""
FLOAT16_MAX = 65504.0


@dataclass(frozen=True)
class TransferSet:
    """N texts, where each came from, its labelled label where it has one, and the teacher's logits (N, C) float16."""

    texts: TransferTexts
    logits: np.ndarray

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: np.ndarray) -> TransferSet:
        """The texts at `rows`, in that order, each with its logits."""
        return TransferSet(self.texts.take(rows), self.logits[rows])

    def content_hash(self) -> str:
        """SHA-256 over texts, pairs and logits in order."""
        digest = hashlib.sha256(np.ascontiguousarray(self.logits).data)
        for column in (self.texts.texts, self.texts.pairs or ()):
            update_joined(digest, column, "\x1e")
        return digest.hexdigest()


TextJudge = Callable[[TransferTexts, Iterable[np.ndarray]], "FilterResult"]
"""The filters that need the teacher's answer: N texts and their logits in blocks (n, C) float16 -> which to keep."""


@dataclass(frozen=True)
class FilterResult:
    """kept: (N,) which texts stay. rejected: reason -> texts."""

    kept: np.ndarray
    rejected: dict[str, int]


def update_joined(digest: Any, parts: Iterable[str], separator: str) -> None:
    """Give a hash the strings with a separator between them, without joining them in memory."""
    for number, part in enumerate(parts):
        digest.update((separator + part if number else part).encode())


def build_transfer_set(
    recipe: TransferConfig,
    texts: TransferTexts,
    teacher: Teacher,
    teacher_hash: str,
    folder: Path,
    *,
    judge: TextJudge | None = None,
    known: tuple[Path, ...] = (),
    filters: dict[str, Any] | None = None,
    stages: StageContext = DEFAULT_STAGES,
) -> TransferSet:
    """The stage `transfer/`: every text labelled once by the teacher, shard by shard.

    Finished shards of a build that was cut off are used again, and so is every answer of the same teacher
    in an older transfer set that stands in `folder` or is `known`. `judge` decides which labelled texts are kept; `filters` are the settings it
    decides by.
    """
    if recipe.precision != "auto":
        teacher_hash = f"{teacher_hash}-{recipe.precision}"
    digest = hashlib.sha256()
    update_joined(digest, _keys(teacher_hash, texts), "\n")
    update_joined(digest, texts.origins, "\n")
    digest.update(np.ascontiguousarray(texts.labels).data)
    inputs = {
        "teacher": teacher_hash,
        "max_length": teacher.max_length,
        "texts": digest.hexdigest(),
        "shard_size": recipe.shard_size,
        "layout": LAYOUT,
    }
    if filters is not None:
        inputs["filters"] = filters

    def make(part: Path) -> dict[str, Any]:
        start = time.monotonic()
        answers = LogitCache(tuple(dict.fromkeys((folder, *known))), teacher.max_length)
        asked = _label_mine(recipe, texts, teacher, teacher_hash, part, answers, stages.progress)
        barrier()
        if asked:
            seconds = time.monotonic() - start
            shared = f", of those that {processes()} processes share" if processes() > 1 else ""
            stages.progress.say(
                f"transfer: the teacher read {asked:,} texts in {seconds:.0f} s ({asked / seconds:,.0f} texts/s){shared}"
            )

        def work() -> dict[str, Any]:
            verdict = (
                judge(texts, map(partial(read_logits, part), range(_shards(texts, recipe))))
                if judge
                else FilterResult(np.ones(len(texts), bool), {})
            )
            _write_texts(texts, np.flatnonzero(verdict.kept), part)
            join_shards(part, verdict.kept, recipe.shard_size)
            origins = Counter(
                origin for origin, stays in zip(texts.origins, verdict.kept, strict=True) if stays
            )
            counts = {
                "texts": int(verdict.kept.sum()),
                "origins": dict(sorted(origins.items())),
                "rejected": verdict.rejected,
            }
            hashes = {name: hash_file(part / name) for name in FILES}
            return counts | {
                "kept": hashlib.sha256(verdict.kept.tobytes()).hexdigest(),
                "sha256": hashes,
            }

        return on_main_process(work) or {}

    stage(folder, inputs, make, stages=stages)
    on_main_process(lambda: remove_shards(folder))
    return read_transfer_set(folder)


def _keys(teacher: str, texts: TransferTexts) -> Iterator[str]:
    return (
        text_key(teacher, text, pair)
        for text, pair in zip(texts.texts, texts.pairs or repeat(None, len(texts)), strict=True)
    )


def _label_mine(
    recipe: TransferConfig,
    texts: TransferTexts,
    teacher: Teacher,
    teacher_hash: str,
    part: Path,
    known: LogitCache,
    progress: Progress,
) -> int:
    """Ask for what is not known of this process's share of the shards; returns how many texts the teacher read.

    One shard is in memory at a time.
    """
    read = 0
    progress.start("the teacher labels the transfer set", len(texts))
    for number in range(rank(), _shards(texts, recipe), processes()):
        start = number * recipe.shard_size
        some = texts.take(np.arange(start, min(start + recipe.shard_size, len(texts))))
        wanted = list(_keys(teacher_hash, some))
        if shard_keys(part, number) != wanted:
            answers = [known.of(key) for key in wanted]
            missing = [i for i, answer in enumerate(answers) if answer is None]
            read += len(missing)
            for i, answer in zip(
                missing,
                _ask(teacher, some.take(np.array(missing)), recipe) if missing else (),
                strict=True,
            ):
                answers[i] = answer
            write_shard(part, number, wanted, np.stack(answers))  # type: ignore[arg-type]
        progress.advance(start + len(wanted))
    progress.finish()
    return read


def _write_texts(texts: TransferTexts, rows: np.ndarray, part: Path) -> None:
    def block(start: int) -> pa.Table:
        some = texts.take(rows[start : start + ROWS])
        columns = {
            "text": some.texts.column,
            "origin": some.origins.column,
            "label": _column(some.labels),
        }
        return pa.table(columns | ({} if some.pairs is None else {"pair": some.pairs.column}))

    write_table(map(block, range(0, max(1, len(rows)), ROWS)), part / TEXTS_FILE)


def _column(labels: np.ndarray) -> pa.Array:
    return (
        pa.array(labels)
        if labels.ndim == 1
        else pa.FixedSizeListArray.from_arrays(pa.array(labels.ravel()), labels.shape[1])
    )


def _read_labels(column: pa.ChunkedArray) -> np.ndarray:
    """Class indices (N,) int64, or scores (N,) and label sets (N, C) as float32."""
    if pa.types.is_fixed_size_list(column.type):
        flat = np.concatenate([np.asarray(chunk.flatten(), np.float32) for chunk in column.chunks])
        return flat.reshape(len(column), column.type.list_size)
    return np.asarray(
        column.to_numpy(), np.int64 if pa.types.is_integer(column.type) else np.float32
    )


def _ask(teacher: Teacher, texts: TransferTexts, recipe: TransferConfig) -> np.ndarray:
    logits = teacher.predict_logits(
        texts.texts, texts.pairs, batch_tokens=recipe.batch_tokens, precision=recipe.precision
    )
    if logits.size and np.abs(logits).max() > FLOAT16_MAX:
        raise CheckFailed(
            "a teacher logit does not fit into 16 bits",
            f"{np.abs(logits).max():g}",
            "check the teacher's weights",
        )
    return logits.astype(np.float16)


def _shards(texts: TransferTexts, recipe: TransferConfig) -> int:
    return -(-len(texts) // recipe.shard_size)


def transfer_hash(folder: Path) -> str:
    """What decides the texts of a finished transfer set and their logits: for a stage that is made from it."""
    whole = read_stage(folder)
    kept = whole["result"].get("kept") if "filters" in whole["inputs"] else None
    return str(whole["inputs"]["texts"] + (f"+{kept}" if kept else ""))


def read_transfer_set(folder: Path) -> TransferSet:
    """A finished transfer set, its texts and logits mapped. Raises IntegrityError where a file is not the one that was written."""
    written = read_stage(folder)["result"].get("sha256", {})
    for name in FILES:
        require_hash(
            folder / name,
            written.get(name),
            "the transfer set",
            "remove the folder and distill again",
        )
    columns = map_table(folder / TEXTS_FILE)
    pairs = TextColumn(columns["pair"]) if "pair" in columns.column_names else None
    texts = TransferTexts.of(
        TextColumn(columns["text"]),
        pairs,
        TextColumn(columns["origin"]),
        _read_labels(columns["label"]),
    )
    return TransferSet(texts, map_array(folder / LOGITS_FILE)[: len(texts)])
