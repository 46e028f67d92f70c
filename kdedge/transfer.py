"""The transfer set: texts and what the teacher says of them, labelled once, on disk, for every student.

transfer/shard-00000.npy   teacher logits (n, C) float16
transfer/shard-00000.json  keys: n hashes of (teacher, text, pair), in order; sha256 of the .npy
transfer/texts.parquet     text, pair, origin, label of all N texts, in order, and whether the text is kept: the teacher's gates refuse some
transfer/stage.json        inputs and counts, written last
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kdedge.augment import TransferTexts
from kdedge.errors import GateFailed, IntegrityError
from kdedge.files import json_text, write_whole
from kdedge.processes import main_does
from kdedge.progress import SILENT, Progress
from kdedge.recipe import Transfer as TransferRecipe
from kdedge.rundir import read_stage, stage
from kdedge.teacher import Teacher

TEXTS_FILE = "texts.parquet"
FLOAT16_MAX = 65504.0


@dataclass(frozen=True)
class TransferSet:
    """N texts, where each came from, its gold label where it has one, and the teacher's logits (N, C) float16."""

    texts: TransferTexts
    logits: np.ndarray

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: np.ndarray) -> TransferSet:
        """The texts at `rows`, in that order, each with its logits."""
        return TransferSet(self.texts.take(rows), self.logits[rows])

    def content_hash(self) -> str:
        """SHA-256 over texts, pairs and logits in order."""
        digest = hashlib.sha256(np.ascontiguousarray(self.logits).tobytes())
        for column in (self.texts.texts, self.texts.pairs or ()):
            digest.update("\x1e".join(column).encode())
        return digest.hexdigest()


Judge = Callable[[TransferTexts, np.ndarray], "Verdict"]
"""The gates that need the teacher's answer: texts and logits (N, C) float32 -> which to keep."""


@dataclass(frozen=True)
class Verdict:
    """kept: (N,) which texts stay. refused: reason -> texts."""

    kept: np.ndarray
    refused: dict[str, int]


def text_key(teacher: str, text: str, pair: str | None) -> str:
    """The name under which a teacher's answer to a text is kept: 128 bits of SHA-256, as hex."""
    digest = hashlib.sha256()
    for part in (teacher, text, "" if pair is None else "\x01" + pair):
        encoded = part.encode("utf-8")
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.hexdigest()[:32]


def build_transfer_set(
    recipe: TransferRecipe,
    texts: TransferTexts,
    teacher: Teacher,
    teacher_hash: str,
    folder: Path,
    *,
    judge: Judge | None = None,
    known: tuple[Path, ...] = (),
    gates: dict[str, Any] | None = None,
    force: bool = False,
    progress: Progress = SILENT,
) -> TransferSet:
    """The stage `transfer/`: every text labelled once by the teacher, shard by shard.

    Finished shards of a build that was cut off are used again, and so is every answer of the same teacher
    in an older transfer set that stands in `folder` or is `known`. `judge` decides which labelled texts are kept; `gates` are the settings it
    decides by.
    """
    keys = [text_key(teacher_hash, text, texts.pairs[i] if texts.pairs else None) for i, text in enumerate(texts.texts)]
    digest = hashlib.sha256("\n".join(keys).encode())
    digest.update("\n".join(texts.origins).encode() + np.ascontiguousarray(texts.labels).tobytes())
    inputs = {"teacher": teacher_hash, "max_length": teacher.max_length, "texts": digest.hexdigest(), "shard_size": recipe.shard_size}
    if gates is not None:
        inputs["gates"] = gates

    def make(part: Path) -> dict[str, Any]:
        def work() -> dict[str, Any]:
            start = time.monotonic()
            asked = _label_all(recipe, texts, keys, teacher, part, _known_answers((folder, *known), teacher.max_length), progress)
            if asked:
                seconds = time.monotonic() - start
                progress.say(f"transfer: the teacher read {asked:,} texts in {seconds:.0f} s ({asked / seconds:,.0f} texts/s)")
            logits = np.concatenate([np.load(part / f"shard-{number:05d}.npy") for number in range(len(_starts(keys, recipe)))])
            verdict = judge(texts, logits.astype(np.float32)) if judge else Verdict(np.ones(len(texts), bool), {})
            _write_texts(texts, verdict.kept, part)
            kept = tuple(origin for origin, stays in zip(texts.origins, verdict.kept, strict=True) if stays)
            counts = {"texts": len(kept), "origins": _counts(kept), "refused": verdict.refused}
            return counts | {"shards": len(_starts(keys, recipe)), "kept": hashlib.sha256(verdict.kept.tobytes()).hexdigest()}

        return main_does(work) or {}

    stage(folder, inputs, make, force=force, progress=progress)
    return read_transfer_set(folder)


def _label_all(
    recipe: TransferRecipe,
    texts: TransferTexts,
    keys: list[str],
    teacher: Teacher,
    part: Path,
    known: dict[str, np.ndarray],
    progress: Progress,
) -> int:
    """Ask for what is not known; returns how many texts the teacher read."""
    read = 0
    progress.start("the teacher labels the transfer set", len(texts))
    for number, start in enumerate(_starts(keys, recipe)):
        wanted = keys[start : start + recipe.shard_size]
        if _shard_keys(part, number) != wanted:
            missing = [i for i, key in enumerate(wanted) if key not in known]
            asked = [start + i for i in missing]
            answers: np.ndarray | list[np.ndarray] = _ask(teacher, texts, asked, recipe.batch_tokens) if asked else []
            read += len(asked)
            fresh = dict(zip([wanted[i] for i in missing], answers, strict=True))
            _write_shard(part, number, wanted, np.stack([fresh[key] if key in fresh else known[key] for key in wanted]))
        progress.advance(start + len(wanted))
    progress.finish()
    return read


def _write_texts(texts: TransferTexts, kept: np.ndarray, part: Path) -> None:
    columns = {"text": texts.texts, "origin": texts.origins, "label": list(texts.labels), "kept": kept}
    if texts.pairs is not None:
        columns["pair"] = texts.pairs
    pq.write_table(pa.table({name: pa.array(column) for name, column in columns.items()}), part / TEXTS_FILE, compression="zstd")


def _ask(teacher: Teacher, texts: TransferTexts, asked: list[int], batch_tokens: int) -> np.ndarray:
    pairs = None if texts.pairs is None else tuple(texts.pairs[i] for i in asked)
    logits = teacher.annotate(tuple(texts.texts[i] for i in asked), pairs, batch_tokens=batch_tokens, precision="auto")
    if logits.size and np.abs(logits).max() > FLOAT16_MAX:
        raise GateFailed("a teacher logit does not fit into 16 bits", f"{np.abs(logits).max():g}", "check the teacher's weights")
    return logits.astype(np.float16)


def _starts(keys: list[str], recipe: TransferRecipe) -> range:
    return range(0, len(keys), recipe.shard_size)


def _counts(origins: tuple[str, ...]) -> dict[str, int]:
    return {origin: origins.count(origin) for origin in sorted(set(origins))}


def _write_shard(folder: Path, number: int, keys: list[str], logits: np.ndarray) -> None:
    """Logits first, their description last: a shard without it does not count."""
    path = folder / f"shard-{number:05d}.npy"
    np.save(path, logits)
    write_whole(path.with_suffix(".json"), json_text({"keys": keys, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}))


def _shard_keys(folder: Path, number: int) -> list[str] | None:
    """Keys of a whole shard; None where it is absent or its logits are not those that were written."""
    path = folder / f"shard-{number:05d}.npy"
    try:
        description = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        whole = description["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    except (OSError, ValueError, KeyError):
        return None
    return list(description["keys"]) if whole else None


def _known_answers(folders: tuple[Path, ...], max_length: int) -> dict[str, np.ndarray]:
    """Key -> logits (C,) of older transfer sets, whose keys name their teacher, where it was read as far as now."""
    known: dict[str, np.ndarray] = {}
    for folder in folders:
        if not folder.exists() or read_stage(folder)["inputs"]["max_length"] != max_length:
            continue
        number = 0
        while (keys := _shard_keys(folder, number)) is not None:
            known.update(zip(keys, np.load(folder / f"shard-{number:05d}.npy", allow_pickle=False), strict=True))
            number += 1
    return known


def transfer_hash(folder: Path) -> str:
    """What decides the texts of a finished transfer set and their logits: for a stage that is made from it."""
    whole = read_stage(folder)
    kept = whole["result"].get("kept") if "gates" in whole["inputs"] else None
    return str(whole["inputs"]["texts"] + (f"+{kept}" if kept else ""))


def read_transfer_set(folder: Path) -> TransferSet:
    """A finished transfer set. Raises IntegrityError where a shard is not the one that was written."""
    shards = []
    for number in range(read_stage(folder)["result"]["shards"]):
        if _shard_keys(folder, number) is None:
            raise IntegrityError("a shard of the transfer set is damaged", f"{folder}/shard-{number:05d}.npy", "remove the folder and distill again")
        shards.append(np.load(folder / f"shard-{number:05d}.npy", allow_pickle=False))
    table = pq.read_table(folder / TEXTS_FILE)
    columns = {name: table.column(name).to_pylist() for name in table.column_names}
    labels = np.array(columns["label"], dtype=np.int64 if pa.types.is_integer(table.schema.field("label").type) else np.float32)
    pairs = tuple(columns["pair"]) if "pair" in columns else None
    whole = TransferSet(TransferTexts(tuple(columns["text"]), pairs, tuple(columns["origin"]), labels), np.concatenate(shards))
    kept = np.array(columns.get("kept", [True] * len(whole)), dtype=bool)
    return whole if kept.all() else whole.take(np.flatnonzero(kept))
