"""Decide whether the teacher's layers are cached on disk or computed at every step."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from kdedge.distillation.layer_cache import LayerCache, TeacherLayers, write_layers
from kdedge.nn.batching import Encoded
from kdedge.nn.device import to_device, wait_for
from kdedge.nn.signals import read_signals
from kdedge.nn.token_alignment import averaged, without_alignment
from kdedge.run.progress import SILENT

TRIAL_BATCHES = 6
"""Batches that are computed, written and read to measure what they cost."""


@dataclass(frozen=True)
class LayerCosts:
    """Seconds per text to get the teacher's layers.

    Attributes:
        live: Time to compute the layers.
        write: Time to write them to disk.
        read: Time to read them from disk to the device.
    """

    live: float
    write: float
    read: float

    def live_is_faster(self, epochs: float) -> bool:
        """Return whether a training of this many epochs is faster without a cache."""
        return epochs * self.live < self.live + self.write + epochs * self.read


def measure_layer_costs(
    source: TeacherLayers, folder: Path, batch_size: int, precision: torch.dtype | None
) -> LayerCosts:
    """Measure how long it takes to compute, write and read the layers of a few batches.

    Args:
        folder: A temporary folder is made in it.
        batch_size: Batch size of the training.
        precision: Autocast type in which the training would compute the layers at every step;
            None is fp32. A cache is always filled in fp32.
    """
    count = min(len(source.data), TRIAL_BATCHES * batch_size)
    rows = np.linspace(0, len(source.data) - 1, count).astype(np.int64)
    rows = rows[np.argsort(source.data.lengths[rows], kind="stable")]
    trial = replace(source, data=Encoded(source.data.tokens).take(rows))
    batches = [range(i, min(i + batch_size, count)) for i in range(0, count, batch_size)]
    device = source.teacher.model.device
    for _ in _live(
        trial, batches[:1], precision
    ):  # the first batch also pays for memory and kernels
        wait_for(device)
    start = time.perf_counter()
    for _ in _live(trial, batches, precision):
        wait_for(device)
    computed = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=folder, prefix=".layers-") as name:
        files = write_layers(trial, Path(name), SILENT)
        written = time.perf_counter()
        cache = LayerCache(files, source.selection)
        logits = torch.zeros(1, device=device)
        for batch in batches:
            longest = int(trial.lengths[batch.start : batch.stop].max())
            cache.read(np.asarray(batch), logits, longest)
            wait_for(device)
        read = time.perf_counter()
    live = computed - start
    return LayerCosts(
        live=live / count,
        write=max(0.0, written - computed - live) / count,
        read=(read - written) / count,
    )


def _live(
    source: TeacherLayers, batches: list[range], precision: torch.dtype | None
) -> Iterator[None]:
    """Compute the layers of one batch per iteration, without storing them."""
    model = source.teacher.model.eval()
    for rows in batches:
        batch = source.teacher.pad(source.data.take(list(rows)))
        autocast = torch.autocast(model.device.type, precision, enabled=precision is not None)
        with torch.no_grad(), autocast:
            moved = {name: to_device(values, model.device) for name, values in batch.items()}
            averaged(read_signals(model, without_alignment(moved), layers=True), moved)
        yield
