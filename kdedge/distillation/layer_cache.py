"""Cache the teacher's hidden states and attention for all training texts on disk.

signals-<hash>/hidden.npy     (sum of T, layers, H) float16
signals-<hash>/attention.npy  (sum of T^2, layers, A) float16
signals-<hash>/vectors.npy    (sum of T, layers, 3, A, D) float16: queries, keys, values
signals-<hash>/stage.json     what decides the content, written last

The files hold only the layers that an objective needs, as the teacher computes them in fp32, with
one row for each token of the student. All trainings on the same tokens share them. The folder may
be removed after a training: it is made again when it is needed. An interrupted build starts again;
it takes as long as one epoch of the teacher.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kdedge.distillation.layer_files import Float16OverflowError, LayerFiles, Layout
from kdedge.distillation.layer_sizes import layer_sizes
from kdedge.errors import KdedgeError
from kdedge.io.atomic import hash_files, json_text, remove, replace_dir, write_atomic
from kdedge.nn.batching import Encoded
from kdedge.nn.device import to_device
from kdedge.nn.inference import iter_predictions
from kdedge.nn.signals import LayerSelection, Signals, read_signals
from kdedge.nn.text_model import TextClassifier
from kdedge.nn.token_alignment import FIRST, averaged, without_alignment
from kdedge.run.locks import wait_for_lock
from kdedge.run.processes import on_main_process
from kdedge.run.progress import SILENT, Progress
from kdedge.run.stage import STAGE_FILE, read_result, read_stage

FREE_SHARE = 0.9
"""The cache takes at most this share of the free disk space: checkpoints need some, too."""


@dataclass(frozen=True)
class TeacherLayers:
    """The layers to cache, their teacher and the texts.

    Attributes:
        teacher_hash: Hash of the teacher's weights.
        data: The teacher's tokens of the texts, aligned with the student's if both tokenizers
            differ.
    """

    teacher: TextClassifier
    teacher_hash: str
    data: Encoded
    selection: LayerSelection
    batch_tokens: int = 4096

    @property
    def lengths(self) -> np.ndarray:
        """Number of student tokens of each text. *Shape:* (N,)"""
        return self.data.tokens.get(FIRST, self.data.tokens["input_ids"]).lengths

    def layout(self) -> Layout:
        sizes = layer_sizes(self.teacher.model.config)
        return Layout.of(self.selection, sizes, self.lengths)

    def inputs(self) -> dict[str, Any]:
        """Return everything that decides the content of the cache."""
        digest = hashlib.sha256()
        for name, column in sorted(self.data.tokens.items()):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(column.values).tobytes())
            digest.update(np.ascontiguousarray(column.lengths).tobytes())
        return {
            "teacher": self.teacher_hash,
            "texts": digest.hexdigest(),
            "layers": json.loads(json.dumps(asdict(self.selection))),
        }


class LayerCache:
    """The teacher's layers on N texts, on disk."""

    def __init__(self, files: LayerFiles, selection: LayerSelection) -> None:
        self.files = files
        self.selection = selection

    def read(self, rows: np.ndarray, logits: torch.Tensor, length: int) -> Signals:
        """Return the signals of some texts, padded with zeros to `length` tokens.

        Args:
            rows: Indices of the texts. *Shape:* (batch_size,)
            logits: The teacher's logits of these texts, which are stored elsewhere.

        Returns:
            Signals on the device of `logits`; layers that are not cached are empty tensors.
        """
        blocks = {}
        for name in self.files.arrays:
            block = torch.from_numpy(self.files.read(name, rows, length))
            blocks[name] = to_device(block, logits.device)
        hidden: dict[int, Any] = {}
        for i, layer in enumerate(self.selection.hidden):
            hidden[layer] = blocks["hidden"][:, :, i]
        attention: dict[int, Any] = {}
        for i, layer in enumerate(self.selection.attention):
            attention[layer] = blocks["attention"][..., i, :].permute(0, 3, 1, 2)
        vectors: dict[int, Any] = {}
        for i, layer in enumerate(self.selection.vectors):
            vectors[layer] = blocks["vectors"][:, :, i].permute(2, 0, 3, 1, 4).unbind(0)
        empty = torch.empty(0, device=logits.device)
        return Signals(
            logits,
            _by_layer(hidden, empty),
            _by_layer(attention, empty),
            _by_layer(vectors, (empty, empty, empty)),
        )


def _by_layer(layers: dict[int, Any], empty: Any) -> tuple[Any, ...]:
    """Return a tuple indexed by layer number, with `empty` for layers that are missing."""
    return tuple(layers.get(layer, empty) for layer in range(max(layers, default=-1) + 1))


@dataclass(frozen=True)
class LayerCacheResult:
    """What a finished layer cache holds: the number of texts, and a hash of its files."""

    texts: int
    files: str

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> LayerCacheResult:
        return cls(**document)


def open_layer_cache(
    source: TeacherLayers, run: Path, *, max_bytes: float, progress: Progress = SILENT
) -> LayerCache | None:
    """Open the cache of these layers in a run's folder, and fill it first if necessary.

    If several processes ask for it, one fills it and the others wait.

    Args:
        max_bytes: Limit on all layer caches of the run together.

    Returns:
        None if there is not enough space or a value does not fit into float16. The teacher must
        then run at every step.
    """
    name = hashlib.sha256(json_text(source.inputs()).encode()).hexdigest()[:8]
    folder = run / f"signals-{name}"
    on_main_process(lambda: _fill(source, folder, max_bytes, progress))
    if not folder.exists():
        return None
    return LayerCache(LayerFiles.open(source.layout(), folder), source.selection)


def _fill(source: TeacherLayers, folder: Path, max_bytes: float, progress: Progress) -> None:
    """Fill the cache unless it is complete or there is not enough space."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    waiting = "another process reads the teacher's layers; waiting for it"
    with wait_for_lock(folder, waiting, progress):
        if _is_complete(folder, source):
            progress.say(f"{folder.name}: the teacher's layers on these texts are cached")
            return
        remove(folder)
        part = folder.with_name(f"{folder.name}.part")
        remove(part)
        if not _has_space(source.layout().bytes, folder.parent, max_bytes, progress):
            return
        part.mkdir()
        try:
            files = write_layers(source, part, progress)
        except (Float16OverflowError, OSError) as error:
            remove(part)
            progress.say(f"the teacher runs at every step: its layers cannot be cached ({error})")
            return
        hashes = hash_files(part, files.layout.file_names)
        result = asdict(LayerCacheResult(len(source.data), hashes))
        document = {"inputs": source.inputs(), "result": result, "files": {}}
        write_atomic(part / STAGE_FILE, json_text(document))
        replace_dir(part, folder)


def _is_complete(folder: Path, source: TeacherLayers) -> bool:
    """Return whether the folder holds a whole, unchanged cache of these layers."""
    try:
        same_inputs = read_stage(folder).inputs == source.inputs()
        hashes = hash_files(folder, source.layout().file_names)
        return same_inputs and read_result(folder, LayerCacheResult).files == hashes
    except (OSError, KeyError, KdedgeError):
        return False


def _has_space(needed: int, run: Path, max_bytes: float, progress: Progress) -> bool:
    used = sum(file.stat().st_size for file in run.glob("signals-*/*.npy"))
    free = FREE_SHARE * shutil.disk_usage(run).free
    if needed <= min(max_bytes - used, free):
        return True
    progress.say(
        "the teacher runs at every step: its layers on these texts would take "
        f"{needed / 1e9:.1f} GB; {used / 1e9:.1f} of transfer.layers_gb = {max_bytes / 1e9:g} "
        f"are in use, and {free / 1e9:.1f} GB of the disk are available"
    )
    return False


def write_layers(source: TeacherLayers, part: Path, progress: Progress) -> LayerFiles:
    """Write the layers of every text to files in `part`, in batches of similar lengths."""
    teacher = source.teacher
    files = LayerFiles.create(source.layout(), part)
    device = next(teacher.model.eval().parameters()).device

    def run_teacher(batch: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            signals = read_signals(teacher.model, without_alignment(batch), layers=True)
            blocks = _stack_layers(averaged(signals, batch), source.selection)
        return {name: block.to(torch.float16).cpu().numpy() for name, block in blocks.items()}

    progress.start("the teacher's layers on every text", len(source.data))
    done = 0
    for rows, blocks in iter_predictions(
        run_teacher, source.data, teacher.pad, device, source.batch_tokens
    ):
        for name, block in blocks.items():
            for position, row in enumerate(rows):
                files.write(name, row, block, position)
        done += len(rows)
        progress.advance(done)
    files.flush()
    progress.finish()
    return files


def _stack_layers(signals: Signals, selection: LayerSelection) -> dict[str, torch.Tensor]:
    """Stack the selected layers as (B, T, layers, ...), for attention (B, T, T, layers, A)."""
    blocks = {}
    if selection.hidden:
        hidden = [signals.hidden[layer] for layer in selection.hidden]
        blocks["hidden"] = torch.stack(hidden, 2)
    if selection.attention:
        attention = [signals.attention[layer] for layer in selection.attention]  # (B, A, T, T)
        blocks["attention"] = torch.stack(attention, 1).permute(0, 3, 4, 1, 2)
    if selection.vectors:
        vectors = [torch.stack(signals.vectors[layer], 1) for layer in selection.vectors]
        blocks["vectors"] = torch.stack(vectors, 1).permute(0, 4, 1, 2, 3, 5)  # (B, T, L, 3, A, D)
    return blocks
