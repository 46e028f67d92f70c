"""What the teacher's layers say of every text of a training: read once, kept on disk, shared by all trainings on these texts.

signals-<hash>/hidden.npy     (sum of T, layers, H) float16
signals-<hash>/attention.npy  (sum of T^2, layers, A) float16
signals-<hash>/vectors.npy    (sum of T, layers, 3, A, D) float16: queries, keys, values
signals-<hash>/stage.json     what they were read from, written last

Only the layers that an objective reads are there, as the teacher computes them in fp32. The folder may be removed once the training is
done: it is made again where it is missed. A reading that was cut off begins anew: it is as long as one epoch of the teacher.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from kdedge.distillation.objective import LayerSizes, layer_sizes
from kdedge.errors import KdedgeError
from kdedge.io.atomic import hash_files, json_text, remove, replace_dir, write_atomic
from kdedge.nn.batching import Encoded
from kdedge.nn.inference import iter_predictions
from kdedge.nn.signals import LayerSelection, Signals, read_signals
from kdedge.nn.text_model import TextClassifier
from kdedge.run.processes import on_main_process
from kdedge.run.progress import SILENT, Progress
from kdedge.run.stage import STAGE_FILE, read_stage

FREE = 0.9
"""Share of a disk's free space that may be taken: checkpoints need some, too."""
SIDES = {"hidden": 1, "attention": 2, "vectors": 1}
"""Axes of a batch that run over tokens."""


@dataclass(frozen=True)
class Layout:
    """How much each text takes: what is kept of a token, or of a pair of tokens, in files of one row for each."""

    shapes: dict[str, tuple[int, ...]]
    lengths: np.ndarray

    @classmethod
    def of(cls, reads: LayerSelection, sizes: LayerSizes, lengths: np.ndarray) -> Layout:
        """lengths: (N,) tokens of each text."""
        shapes = {
            "hidden": (len(reads.hidden), sizes.width),
            "attention": (len(reads.attention), sizes.heads),
            "vectors": (len(reads.vectors), 3, sizes.heads, sizes.depth),
        }
        return cls(
            {name: shape for name, shape in shapes.items() if shape[0]}, lengths.astype(np.int64)
        )

    def starts(self, name: str) -> np.ndarray:
        """(N + 1,) the first row of each text, and one past the last."""
        return np.concatenate([[0], np.cumsum(self.lengths ** SIDES[name])])

    def inside(self, name: str, place: int, row: int) -> tuple[int | slice, ...]:
        """Where text `row` stands in a padded batch (B, T, ...) whose text `place` it is: its own tokens alone."""
        return (place, *[slice(int(self.lengths[row]))] * SIDES[name])

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"{name}.npy" for name in self.shapes)

    @property
    def bytes(self) -> int:
        return sum(
            2 * int(self.starts(name)[-1]) * math.prod(shape) for name, shape in self.shapes.items()
        )

    def open(self, folder: Path, mode: str) -> dict[str, np.ndarray]:
        """The files, mapped into memory; mode as of numpy. Raises OSError or ValueError where one is not of this layout."""
        files: dict[str, np.ndarray] = {}
        for name, shape in self.shapes.items():
            whole = (int(self.starts(name)[-1]), *shape)
            made = {"dtype": np.float16, "shape": whole} if mode == "w+" else {}
            files[name] = np.lib.format.open_memmap(folder / f"{name}.npy", mode=mode, **made)  # type: ignore[arg-type]
            if mode == "w+" and hasattr(
                os, "posix_fallocate"
            ):  # a disk that fills up later would end the process without a word
                with (folder / f"{name}.npy").open("r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, file.seek(0, os.SEEK_END))
            if files[name].shape != whole:
                raise ValueError(f"{name}.npy is {files[name].shape}, not {whole}")
        return files


class LayerCache:
    """The teacher's layers on N texts, on disk."""

    def __init__(self, folder: Path, layout: Layout, reads: LayerSelection) -> None:
        self.reads, self.layout = reads, layout
        self._files = layout.open(folder, "r")
        self._starts = {name: layout.starts(name) for name in layout.shapes}

    def of(self, rows: torch.Tensor, logits: torch.Tensor, longest: int) -> Signals:
        """Signals of the texts `rows` (B,), padded with zeros to `longest` tokens; layers that are not kept are empty tensors.

        logits: (B, C), which are kept elsewhere; the answer is on their device.
        """
        blocks = {
            name: torch.from_numpy(self._block(name, rows.tolist(), longest)).to(logits.device)
            for name in self._files
        }
        hidden = {t: blocks["hidden"][:, :, i] for i, t in enumerate(self.reads.hidden)}
        attention = {
            t: blocks["attention"][..., i, :].permute(0, 3, 1, 2)
            for i, t in enumerate(self.reads.attention)
        }
        vectors = {
            t: tuple(blocks["vectors"][:, :, i, k].transpose(1, 2) for k in range(3))
            for i, t in enumerate(self.reads.vectors)
        }
        blank = torch.empty(0, device=logits.device)
        return Signals(
            logits,
            _placed(hidden, blank),
            _placed(attention, blank),
            _placed(vectors, (blank, blank, blank)),
        )

    def _block(self, name: str, rows: list[int], longest: int) -> np.ndarray:
        """(B, T, ...), of attention (B, T, T, ...)."""
        starts = self._starts[name]
        block = np.zeros(
            (len(rows), *[longest] * SIDES[name], *self.layout.shapes[name]), np.float16
        )
        for place, row in enumerate(rows):
            inside = self.layout.inside(name, place, row)
            block[inside] = self._files[name][starts[row] : starts[row + 1]].reshape(
                block[inside].shape
            )
        return block


def _placed(found: dict[int, Any], blank: Any) -> tuple[Any, ...]:
    return tuple(found.get(layer, blank) for layer in range(max(found, default=-1) + 1))


def open_layer_cache(
    teacher: TextClassifier,
    teacher_hash: str,
    data: Encoded,
    reads: LayerSelection,
    run: Path,
    *,
    room: float,
    batch_tokens: int = 4096,
    progress: Progress = SILENT,
) -> LayerCache | None:
    """The stage `signals-<hash>/` in the folder of a run; None where the teacher must run at every step: all such folders of the run
    would take more than `room` bytes, or more than nine tenths of what the disk has free, or a value does not fit into 16 bits.

    data: the texts as student and teacher read them. Several processes may ask at once: one reads, the others wait.
    """
    layout = Layout.of(reads, layer_sizes(teacher.model.config), data.lengths)
    inputs = {
        "teacher": teacher_hash,
        "texts": _hash(data),
        "reads": json.loads(json.dumps(asdict(reads))),
        "bytes": layout.bytes,
    }
    folder = run / f"signals-{hashlib.sha256(json_text(inputs).encode()).hexdigest()[:8]}"

    def work() -> None:
        run.mkdir(parents=True, exist_ok=True)
        lock = FileLock(str(folder.with_name(f".{folder.name}.lock")))
        try:
            held = lock.acquire(timeout=0)
        except Timeout:
            progress.say(
                f"{folder.name}: another process reads the teacher's layers on these texts; waiting for it"
            )
            held = lock.acquire()
        with held:
            if _is_whole(folder, inputs, layout):
                progress.say(f"{folder.name}: the teacher's layers on these texts, kept")
                return
            remove(folder)
            part = folder.with_name(f"{folder.name}.part")
            remove(part)
            if _has_room(layout, run, room, progress):
                make(part)

    def make(part: Path) -> None:
        part.mkdir()
        try:
            _read(teacher, data, reads, layout, part, batch_tokens, progress)
        except (_TooLarge, OSError) as error:
            remove(part)
            progress.say(f"the teacher runs at every step: its layers cannot be kept ({error})")
            return
        result = {"texts": len(data), "files": hash_files(part, layout.names)}
        write_atomic(part / STAGE_FILE, json_text({"inputs": inputs, "result": result}))
        replace_dir(part, folder)

    on_main_process(work)
    return LayerCache(folder, layout, reads) if folder.exists() else None


def _is_whole(folder: Path, inputs: dict[str, Any], layout: Layout) -> bool:
    """Whether the files are those that were written."""
    try:
        stage = read_stage(folder)
        return bool(
            stage["inputs"] == inputs
            and stage["result"]["files"] == hash_files(folder, layout.names)
        )
    except (OSError, KeyError, KdedgeError):
        return False


def _has_room(layout: Layout, run: Path, room: float, progress: Progress) -> bool:
    taken = sum(file.stat().st_size for file in run.glob("signals-*/*.npy"))
    free = FREE * shutil.disk_usage(run).free
    if layout.bytes <= min(room - taken, free):
        return True
    found = f"{layout.bytes / 1e9:.1f} GB; of transfer.layers_gb = {room / 1e9:g} others have {taken / 1e9:.1f}, the disk has {free / 1e9:.1f} to give"
    progress.say(f"the teacher runs at every step: its layers on these texts would take {found}")
    return False


def _hash(data: Encoded) -> str:
    digest = hashlib.sha256()
    for name, column in sorted(data.tokens.items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(column.values).tobytes())
        digest.update(np.ascontiguousarray(column.lengths).tobytes())
    return digest.hexdigest()


class _TooLarge(Exception):
    """A value that 16 bits do not hold."""


def _read(
    teacher: TextClassifier,
    data: Encoded,
    reads: LayerSelection,
    layout: Layout,
    part: Path,
    batch_tokens: int,
    progress: Progress,
) -> None:
    """Fill the files, batch by batch of like length. Raises _TooLarge, or OSError where the disk is full."""
    files, starts = layout.open(part, "w+"), {name: layout.starts(name) for name in layout.shapes}
    device, told = next(teacher.model.eval().parameters()).device, 0

    def ask(batch: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            blocks = _blocks(read_signals(teacher.model, batch, layers=True), reads)
            return {name: block.to(torch.float16).cpu().numpy() for name, block in blocks.items()}

    progress.start("the teacher's layers on every text", len(data))
    for rows, blocks in iter_predictions(ask, data, teacher.pad, device, batch_tokens):
        for (name, block), (place, row) in product(blocks.items(), enumerate(rows)):
            values = block[layout.inside(name, place, row)].reshape(-1, *layout.shapes[name])
            if not np.isfinite(values).all():
                raise _TooLarge(f"{name} of text {row}: a value does not fit into 16 bits")
            files[name][starts[name][row] : starts[name][row + 1]] = values
        told += len(rows)
        progress.advance(told)
    for file in files.values():
        file.flush()  # type: ignore[attr-defined]
    progress.finish()


def _blocks(signals: Signals, reads: LayerSelection) -> dict[str, torch.Tensor]:
    """What is kept of a batch: (B, T, layers, ...), of attention (B, T, T, layers, A)."""
    found = {}
    if reads.hidden:
        found["hidden"] = torch.stack([signals.hidden[t] for t in reads.hidden], 2)
    if reads.attention:
        found["attention"] = torch.stack(
            [signals.attention[t].permute(0, 2, 3, 1) for t in reads.attention], 3
        )
    if reads.vectors:
        found["vectors"] = torch.stack(
            [
                torch.stack([vector.transpose(1, 2) for vector in signals.vectors[t]], 2)
                for t in reads.vectors
            ],
            2,
        )
    return found
