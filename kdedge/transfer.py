"""The transfer set: texts and what the teacher says of them, labelled once, on disk, for every student.

transfer/shard-00000.npy   teacher logits (n, C) float16
transfer/shard-00000.json  keys: n hashes of (teacher, text, pair), in order; sha256 of the .npy
transfer/texts.parquet     text, pair, origin, label of all N texts, in order
transfer/stage.json        inputs and counts, written last
"""

from __future__ import annotations

import hashlib
import json
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
    force: bool = False,
    progress: Progress = SILENT,
) -> TransferSet:
    """The stage `transfer/`: every text labelled once by the teacher, shard by shard.

    Finished shards of a build that was cut off are used again, and so is every answer of the same teacher
    in an older transfer set that stands in `folder`.
    """
    keys = [text_key(teacher_hash, text, texts.pairs[i] if texts.pairs else None) for i, text in enumerate(texts.texts)]
    digest = hashlib.sha256("\n".join(keys).encode())
    digest.update("\n".join(texts.origins).encode() + np.ascontiguousarray(texts.labels).tobytes())
    inputs = {"teacher": teacher_hash, "max_length": teacher.max_length, "texts": digest.hexdigest(), "shard_size": recipe.shard_size}

    def make(part: Path) -> dict[str, Any]:
        main_does(lambda: _label_all(recipe, texts, keys, teacher, part, _known_answers(folder, teacher.max_length), progress))
        return {"texts": len(texts), "shards": len(_starts(keys, recipe)), "origins": _counts(texts.origins)}

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
) -> None:
    columns = {"text": texts.texts, "origin": texts.origins, "label": list(texts.labels)}
    if texts.pairs is not None:
        columns["pair"] = texts.pairs
    pq.write_table(pa.table({name: pa.array(column) for name, column in columns.items()}), part / TEXTS_FILE, compression="zstd")
    progress.start("the teacher labels the transfer set", len(texts))
    for number, start in enumerate(_starts(keys, recipe)):
        wanted = keys[start : start + recipe.shard_size]
        if _shard_keys(part, number) != wanted:
            missing = [i for i, key in enumerate(wanted) if key not in known]
            asked = [start + i for i in missing]
            answers: np.ndarray | list[np.ndarray] = _ask(teacher, texts, asked, recipe.batch_tokens) if asked else []
            fresh = dict(zip([wanted[i] for i in missing], answers, strict=True))
            _write_shard(part, number, wanted, np.stack([fresh[key] if key in fresh else known[key] for key in wanted]))
        progress.advance(start + len(wanted))
    progress.finish()


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


def _known_answers(folder: Path, max_length: int) -> dict[str, np.ndarray]:
    """Key -> logits (C,) of an older transfer set, whose keys name its teacher, where it was read as far as now."""
    known: dict[str, np.ndarray] = {}
    if not folder.exists() or read_stage(folder)["inputs"]["max_length"] != max_length:
        return known
    number = 0
    while (keys := _shard_keys(folder, number)) is not None:
        known.update(zip(keys, np.load(folder / f"shard-{number:05d}.npy", allow_pickle=False), strict=True))
        number += 1
    return known


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
    return TransferSet(TransferTexts(tuple(columns["text"]), pairs, tuple(columns["origin"]), labels), np.concatenate(shards))
