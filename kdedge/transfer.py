"""The transfer set: texts and what the teacher says of them, labelled once, on disk, for every student.

transfer/texts.arrow  text, pair, origin, label of all N texts, in order, and whether the text is kept: the teacher's gates refuse some
transfer/logits.npy   what the teacher says of them, (N, C) float16
transfer/keys.npy     N hashes of (teacher, text, pair), 128 bits each
transfer/stage.json   inputs, counts and the SHA-256 of each file, written last
While it is made, the answers stand beside in shards; a build goes on where it was cut off. Texts and logits are mapped, not held in
memory: neither labelling nor a finished set takes more of it for more texts, but for some 40 bytes each.
"""

from __future__ import annotations

import hashlib
import json
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

from kdedge.augment import TransferTexts
from kdedge.errors import GateFailed
from kdedge.files import hash_file, json_text, require_hash, write_whole
from kdedge.processes import barrier, main_does, processes, rank
from kdedge.progress import SILENT, Progress
from kdedge.recipe import Transfer as TransferRecipe
from kdedge.rundir import read_stage, stage
from kdedge.strings import Strings
from kdedge.tables import map_table, write_table
from kdedge.teacher import Teacher

TEXTS_FILE, LOGITS_FILE, KEYS_FILE = FILES = ("texts.arrow", "logits.npy", "keys.npy")
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
            update_joined(digest, column, "\x1e")
        return digest.hexdigest()


Judge = Callable[[TransferTexts, Iterable[np.ndarray]], "Verdict"]
"""The gates that need the teacher's answer: N texts and their logits in blocks (n, C) float16 -> which to keep."""


@dataclass(frozen=True)
class Verdict:
    """kept: (N,) which texts stay. refused: reason -> texts."""

    kept: np.ndarray
    refused: dict[str, int]


def update_joined(digest: Any, parts: Iterable[str], separator: str) -> None:
    """Give a hash the strings with a separator between them, without joining them in memory."""
    for number, part in enumerate(parts):
        digest.update((separator + part if number else part).encode())


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
    if recipe.precision != "auto":
        teacher_hash = f"{teacher_hash}-{recipe.precision}"
    digest = hashlib.sha256()
    update_joined(digest, _keys(teacher_hash, texts), "\n")
    update_joined(digest, texts.origins, "\n")
    digest.update(np.ascontiguousarray(texts.labels).tobytes())
    inputs = {"teacher": teacher_hash, "max_length": teacher.max_length, "texts": digest.hexdigest(), "shard_size": recipe.shard_size}
    if gates is not None:
        inputs["gates"] = gates

    def make(part: Path) -> dict[str, Any]:
        start = time.monotonic()
        answers = KnownAnswers((folder, *known), teacher.max_length)
        asked = _label_mine(recipe, texts, teacher, teacher_hash, part, answers, progress)
        barrier()
        if asked:
            seconds = time.monotonic() - start
            shared = f", of those that {processes()} processes share" if processes() > 1 else ""
            progress.say(f"transfer: the teacher read {asked:,} texts in {seconds:.0f} s ({asked / seconds:,.0f} texts/s){shared}")

        def work() -> dict[str, Any]:
            shards = len(_starts(texts, recipe))
            verdict = judge(texts, map(partial(_read_logits, part), range(shards))) if judge else Verdict(np.ones(len(texts), bool), {})
            _write_texts(texts, verdict.kept, part)
            _join_shards(part, shards, len(texts))
            origins = Counter(origin for origin, stays in zip(texts.origins, verdict.kept, strict=True) if stays)
            counts = {"texts": int(verdict.kept.sum()), "origins": dict(sorted(origins.items())), "refused": verdict.refused}
            hashes = {name: hash_file(part / name) for name in FILES}
            return counts | {"kept": hashlib.sha256(verdict.kept.tobytes()).hexdigest(), "sha256": hashes}

        return main_does(work) or {}

    stage(folder, inputs, make, force=force, progress=progress)
    return read_transfer_set(folder)


def _keys(teacher: str, texts: TransferTexts) -> Iterator[str]:
    return (text_key(teacher, text, pair) for text, pair in zip(texts.texts, texts.pairs or repeat(None, len(texts)), strict=True))


def _label_mine(
    recipe: TransferRecipe,
    texts: TransferTexts,
    teacher: Teacher,
    teacher_hash: str,
    part: Path,
    known: KnownAnswers,
    progress: Progress,
) -> int:
    """Ask for what is not known of this process's share of the shards; returns how many texts the teacher read.

    One shard is in memory at a time.
    """
    read = 0
    progress.start("the teacher labels the transfer set", len(texts))
    for number, start in list(enumerate(_starts(texts, recipe)))[rank() :: processes()]:
        some = texts.take(np.arange(start, min(start + recipe.shard_size, len(texts))))
        wanted = list(_keys(teacher_hash, some))
        if _shard_keys(part, number) != wanted:
            answers = [known.of(key) for key in wanted]
            missing = [i for i, answer in enumerate(answers) if answer is None]
            read += len(missing)
            for i, answer in zip(missing, _ask(teacher, some.take(np.array(missing)), recipe) if missing else (), strict=True):
                answers[i] = answer
            _write_shard(part, number, wanted, np.stack(answers))  # type: ignore[arg-type]
        progress.advance(start + len(wanted))
    progress.finish()
    return read


def _write_texts(texts: TransferTexts, kept: np.ndarray, part: Path) -> None:
    columns = {"text": texts.texts.column, "origin": texts.origins.column, "label": _rows(texts.labels), "kept": pa.array(kept)}
    if texts.pairs is not None:
        columns["pair"] = texts.pairs.column
    write_table(pa.table(columns), part / TEXTS_FILE)


def _join_shards(part: Path, shards: int, count: int) -> None:
    """The answers of all shards in one file, and their keys in another; then the shards are removed."""
    first = _read_logits(part, 0)
    logits = np.lib.format.open_memmap(part / LOGITS_FILE, "w+", first.dtype, (count, *first.shape[1:]))
    keys = np.lib.format.open_memmap(part / KEYS_FILE, "w+", "V16", (count,))
    start = 0
    for number in range(shards):
        mine = np.frombuffer(bytes.fromhex("".join(_shard_keys(part, number) or ())), "V16")
        rows = slice(start, start + len(mine))
        logits[rows], keys[rows] = _read_logits(part, number), mine
        start += len(mine)
    logits.flush()
    keys.flush()
    for number in range(shards):
        _shard_file(part, number).unlink()
        _shard_file(part, number).with_suffix(".json").unlink()


def _rows(labels: np.ndarray) -> pa.Array:
    return pa.array(labels) if labels.ndim == 1 else pa.array(list(labels))


def _read_labels(column: pa.ChunkedArray) -> np.ndarray:
    """Class indices (N,) int64, or scores (N,) and label sets (N, C) as float32."""
    if pa.types.is_list(column.type):
        return np.array(column.to_pylist(), np.float32)
    return np.asarray(column.to_numpy(), np.int64 if pa.types.is_integer(column.type) else np.float32)


def _ask(teacher: Teacher, texts: TransferTexts, recipe: TransferRecipe) -> np.ndarray:
    logits = teacher.annotate(texts.texts, texts.pairs, batch_tokens=recipe.batch_tokens, precision=recipe.precision)
    if logits.size and np.abs(logits).max() > FLOAT16_MAX:
        raise GateFailed("a teacher logit does not fit into 16 bits", f"{np.abs(logits).max():g}", "check the teacher's weights")
    return logits.astype(np.float16)


def _starts(texts: TransferTexts, recipe: TransferRecipe) -> range:
    return range(0, len(texts), recipe.shard_size)


def _shard_file(part: Path, number: int) -> Path:
    return part / f"shard-{number:05d}.npy"


def _read_logits(part: Path, number: int) -> np.ndarray:
    logits: np.ndarray = np.load(_shard_file(part, number), allow_pickle=False)
    return logits


def _map(path: Path) -> np.ndarray:
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def _write_shard(folder: Path, number: int, keys: list[str], logits: np.ndarray) -> None:
    """Logits first, their description last: a shard without it does not count."""
    path = _shard_file(folder, number)
    np.save(path, logits)
    write_whole(path.with_suffix(".json"), json_text({"keys": keys, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}))


def _shard_keys(folder: Path, number: int) -> list[str] | None:
    """Keys of a whole shard; None where it is absent or its logits are not those that were written."""
    path = _shard_file(folder, number)
    try:
        description = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        whole = description["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    except (OSError, ValueError, KeyError):
        return None
    return list(description["keys"]) if whole else None


class KnownAnswers:
    """Answers of older transfer sets, whose keys name their teacher, where it read as far as now; 24 bytes for each are held in memory."""

    def __init__(self, folders: tuple[Path, ...], max_length: int) -> None:
        found = [folder for folder in folders if _answers_whole(folder, max_length)]
        keys = np.concatenate([np.zeros(0, "V16"), *(_map(folder / KEYS_FILE) for folder in found)])
        # Void values have no order in numpy: the two halves are compared instead.
        halves = keys.view(np.uint64).reshape(-1, 2)
        self._order = np.lexsort((halves[:, 1], halves[:, 0]))
        self._first, self._second = halves[self._order, 0], halves[self._order, 1]
        self._logits = [_map(folder / LOGITS_FILE) for folder in found]
        self._starts = np.cumsum([0, *map(len, self._logits)])

    def of(self, key: str) -> np.ndarray | None:
        """Logits (C,) float16, or None where the text was never asked for."""
        first, second = np.frombuffer(bytes.fromhex(key), np.uint64)
        low, high = np.searchsorted(self._first, first, "left"), np.searchsorted(self._first, first, "right")
        for place in range(low, high):
            if self._second[place] == second:
                row = self._order[place]
                number = int(np.searchsorted(self._starts, row, "right")) - 1
                return np.asarray(self._logits[number][row - self._starts[number]])
        return None


def _answers_whole(folder: Path, max_length: int) -> bool:
    """Whether a transfer set stands there whose teacher read as far, and whose answers are those that were written."""
    if not folder.exists():
        return False
    whole = read_stage(folder)
    written = whole["result"].get("sha256", {})
    same = (name for name in (KEYS_FILE, LOGITS_FILE) if (folder / name).is_file() and hash_file(folder / name) == written.get(name))
    return whole["inputs"]["max_length"] == max_length and len(list(same)) == 2


def transfer_hash(folder: Path) -> str:
    """What decides the texts of a finished transfer set and their logits: for a stage that is made from it."""
    whole = read_stage(folder)
    kept = whole["result"].get("kept") if "gates" in whole["inputs"] else None
    return str(whole["inputs"]["texts"] + (f"+{kept}" if kept else ""))


def read_transfer_set(folder: Path) -> TransferSet:
    """A finished transfer set, its texts and logits mapped. Raises IntegrityError where a file is not the one that was written."""
    written = read_stage(folder)["result"].get("sha256", {})
    for name in FILES:
        require_hash(folder / name, written.get(name), "the transfer set", "remove the folder and distill again")
    columns = map_table(folder / TEXTS_FILE)
    pairs = Strings(columns["pair"]) if "pair" in columns.column_names else None
    texts = TransferTexts.of(Strings(columns["text"]), pairs, Strings(columns["origin"]), _read_labels(columns["label"]))
    whole, kept = TransferSet(texts, _map(folder / LOGITS_FILE)), columns["kept"].to_numpy()
    return whole if kept.all() else whole.take(np.flatnonzero(kept))
