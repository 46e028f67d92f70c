"""The teacher's logits on disk: in shards while it labels, then in one file for later sets."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import BinaryIO

import numpy as np

from kdedge.io.atomic import hash_file, is_as_written, json_text, write_atomic
from kdedge.run.stage import read_result, read_stage
from kdedge.transfer.result import TransferResult

LOGITS_FILE = "logits.npy"
KEYS_FILE = "keys.npy"
SHARDS = "shard-*"
"""Files of the shards, which are removed once the stage is finished."""

KEY_TYPE = np.dtype("V16")
"""A key is 128 bits."""


def text_key(teacher: str, text: str, pair: str | None) -> str:
    """Return the key of a teacher's logits for a text: 128 bits of SHA-256, as hex."""
    digest = hashlib.sha256()
    for part in (teacher, text, "" if pair is None else "\x01" + pair):
        encoded = part.encode("utf-8")
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.hexdigest()[:32]


def shard_file(part: Path, number: int) -> Path:
    """Return the path of a shard's logits; its keys are in the .json of the same name."""
    return part / f"shard-{number:05d}.npy"


def read_logits(part: Path, number: int) -> np.ndarray:
    """Return the logits (n, C) float16 of a shard."""
    logits: np.ndarray = np.load(shard_file(part, number), allow_pickle=False)
    return logits


def map_array(path: Path) -> np.ndarray:
    """Memory-map the array of a .npy file."""
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def write_shard(folder: Path, number: int, keys: list[str], logits: np.ndarray) -> None:
    """Write the logits first and the keys last: a shard without keys is incomplete."""
    path = shard_file(folder, number)
    np.save(path, logits)
    record = {"keys": keys, "sha256": hash_file(path)}
    write_atomic(path.with_suffix(".json"), json_text(record))


def shard_keys(folder: Path, number: int) -> list[str] | None:
    """Return the keys of a shard; None if it is incomplete or its logits are damaged."""
    path = shard_file(folder, number)
    try:
        record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        keys, sha256 = list(record["keys"]), str(record["sha256"])
    except (OSError, ValueError, KeyError):
        return None
    return keys if is_as_written(path, sha256) else None


def join_shards(part: Path, kept: np.ndarray, size: int) -> None:
    """Join the shards into one file of logits and one of keys, accepted texts first.

    Only one shard is in memory at a time.

    Args:
        part: Folder of the shards and of the new files.
        kept: Whether the filters accept each text. *Shape:* (N,)
        size: Texts per shard.
    """
    first = read_logits(part, 0)
    with (part / LOGITS_FILE).open("wb") as logits_stream, (part / KEYS_FILE).open("wb") as keys:
        _write_header(logits_stream, first.dtype, (len(kept), *first.shape[1:]))
        _write_header(keys, KEY_TYPE, (len(kept),))
        for group in (kept, ~kept):
            for number, start in enumerate(range(0, len(kept), size)):
                rows = np.flatnonzero(group[start : start + size])
                if len(rows):
                    logits_stream.write(read_logits(part, number)[rows].tobytes())
                    all_keys = shard_keys(part, number) or []
                    keys.write(bytes.fromhex("".join(all_keys[row] for row in rows)))


def _write_header(stream: BinaryIO, dtype: np.dtype, shape: tuple[int, ...]) -> None:
    """Write the header of a .npy file."""
    description = np.lib.format.dtype_to_descr(dtype)
    header = {"descr": description, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)


def remove_shards(folder: Path) -> None:
    """Remove the shards. Call it after the stage is finished: until then a rerun needs them."""
    for path in folder.glob(SHARDS):
        path.unlink()


class LogitCache:
    """Logits of an older transfer set, looked up by key; it holds 24 bytes per text in memory.

    A set that was labelled with another `max_length` is not used.
    """

    def __init__(self, folder: Path, max_length: int) -> None:
        keys = np.zeros(0, KEY_TYPE)
        if _is_usable(folder, max_length):
            keys = map_array(folder / KEYS_FILE)
            self._logits = map_array(folder / LOGITS_FILE)
        # numpy cannot sort 128-bit values, so their two halves are compared.
        halves = keys.view(np.uint64).reshape(-1, 2)
        self._order = np.lexsort((halves[:, 1], halves[:, 0]))
        self._first = halves[self._order, 0]
        self._second = halves[self._order, 1]

    def get(self, key: str) -> np.ndarray | None:
        """Return logits (C,) float16, or None if the set does not have this key."""
        first, second = np.frombuffer(bytes.fromhex(key), np.uint64)
        low = np.searchsorted(self._first, first, "left")
        high = np.searchsorted(self._first, first, "right")
        for i in range(low, high):
            if self._second[i] == second:
                return np.asarray(self._logits[self._order[i]])
        return None


def _is_usable(folder: Path, max_length: int) -> bool:
    """Return whether the folder holds an undamaged transfer set with this `max_length`."""
    if not folder.exists():
        return False
    if read_stage(folder).inputs["max_length"] != max_length:
        return False
    hashes = read_result(folder, TransferResult).sha256
    return all(is_as_written(folder / name, hashes[name]) for name in (KEYS_FILE, LOGITS_FILE))
