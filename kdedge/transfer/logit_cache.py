"""What a teacher said of texts: shard by shard while it is asked, then in one file, where later sets find it again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from kdedge.io.atomic import is_as_written, json_text, write_atomic
from kdedge.run.stage import read_stage

LOGITS_FILE, KEYS_FILE = "logits.npy", "keys.npy"


def text_key(teacher: str, text: str, pair: str | None) -> str:
    """The name under which a teacher's answer to a text is kept: 128 bits of SHA-256, as hex."""
    digest = hashlib.sha256()
    for part in (teacher, text, "" if pair is None else "\x01" + pair):
        encoded = part.encode("utf-8")
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.hexdigest()[:32]


def shard_file(part: Path, number: int) -> Path:
    """Where a shard's logits lie; its keys lie beside, as .json."""
    return part / f"shard-{number:05d}.npy"


def read_logits(part: Path, number: int) -> np.ndarray:
    """Logits (n, C) float16 of a shard."""
    logits: np.ndarray = np.load(shard_file(part, number), allow_pickle=False)
    return logits


def map_array(path: Path) -> np.ndarray:
    """An array of a .npy file, read from the disk where it is asked for."""
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def write_shard(folder: Path, number: int, keys: list[str], logits: np.ndarray) -> None:
    """Logits first, their description last: a shard without it does not count."""
    path = shard_file(folder, number)
    np.save(path, logits)
    write_atomic(
        path.with_suffix(".json"),
        json_text({"keys": keys, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}),
    )


def shard_keys(folder: Path, number: int) -> list[str] | None:
    """Keys of a whole shard; None where it is absent or its logits are not those that were written."""
    path = shard_file(folder, number)
    try:
        description = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        whole = description["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    except (OSError, ValueError, KeyError):
        return None
    return list(description["keys"]) if whole else None


def join_shards(part: Path, kept: np.ndarray, size: int) -> None:
    """The answers of all shards in one file, and their keys in another, those that are kept (N,) first; a shard of `size` texts at a time."""
    first = read_logits(part, 0)
    starts = range(0, len(kept), size)
    with (part / LOGITS_FILE).open("wb") as answers, (part / KEYS_FILE).open("wb") as names:
        for stream, kind, shape in (
            (answers, first.dtype, (len(kept), *first.shape[1:])),
            (names, np.dtype("V16"), (len(kept),)),
        ):
            header = {
                "descr": np.lib.format.dtype_to_descr(kind),
                "fortran_order": False,
                "shape": shape,
            }
            np.lib.format.write_array_header_1_0(stream, header)
        for wanted in (True, False):
            for number, start in enumerate(starts):
                rows = np.flatnonzero(kept[start : start + size] == wanted)
                if len(rows):
                    answers.write(read_logits(part, number)[rows].tobytes())
                    keys = shard_keys(part, number) or []
                    names.write(bytes.fromhex("".join(keys[row] for row in rows)))


def remove_shards(folder: Path) -> None:
    """Once their stage is finished: a kill before that would lose them."""
    for path in folder.glob("shard-*"):
        path.unlink()


class LogitCache:
    """Answers of older transfer sets, whose keys name their teacher, where it read as far as now; 24 bytes for each are held in memory."""

    def __init__(self, folders: tuple[Path, ...], max_length: int) -> None:
        found = [folder for folder in folders if _answers_whole(folder, max_length)]
        keys = np.concatenate(
            [np.zeros(0, "V16"), *(map_array(folder / KEYS_FILE) for folder in found)]
        )
        # Void values have no order in numpy: the two halves are compared instead.
        halves = keys.view(np.uint64).reshape(-1, 2)
        self._order = np.lexsort((halves[:, 1], halves[:, 0]))
        self._first, self._second = halves[self._order, 0], halves[self._order, 1]
        self._logits = [map_array(folder / LOGITS_FILE) for folder in found]
        self._starts = np.cumsum([0, *map(len, self._logits)])

    def of(self, key: str) -> np.ndarray | None:
        """Logits (C,) float16, or None where the text was never asked for."""
        first, second = np.frombuffer(bytes.fromhex(key), np.uint64)
        low, high = (
            np.searchsorted(self._first, first, "left"),
            np.searchsorted(self._first, first, "right"),
        )
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
    return whole["inputs"]["max_length"] == max_length and all(
        is_as_written(folder / name, written.get(name)) for name in (KEYS_FILE, LOGITS_FILE)
    )
