"""Where a student in training gets its teacher's layers: from a cache, or computed live."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kdedge.distillation.layer_cache import LayerCache, TeacherLayers, open_layer_cache
from kdedge.distillation.layer_choice import measure_layer_costs
from kdedge.distillation.module import DistillationModule
from kdedge.distillation.objective import Objective
from kdedge.distillation.teacher_tokens import add_teacher_tokens, check_attention_loss
from kdedge.nn.batching import ROW, Encoded
from kdedge.nn.device import native_precision, this_device
from kdedge.nn.inference import BATCH_TOKENS
from kdedge.nn.text_model import TextClassifier
from kdedge.nn.training_plan import Training
from kdedge.recipe import TransferConfig
from kdedge.run.progress import Progress


@dataclass(frozen=True)
class LayerSource:
    """A teacher whose layers students match.

    Attributes:
        teacher_hash: Hash of the teacher's weights.
        folder: The folder of the run that holds the caches.
        settings: Whether and how the layers are cached.
    """

    teacher: TextClassifier
    teacher_hash: str
    folder: Path
    settings: TransferConfig
    progress: Progress

    def module(
        self,
        student: TextClassifier,
        objective: Objective,
        training: Training,
        own_tokens: Encoded | None,
    ) -> DistillationModule:
        """Return a student in training that matches layers.

        Args:
            training: Its texts get the columns by which the layers are found or computed.
            own_tokens: The teacher's tokens of the texts if they are not the student's.
        """
        if own_tokens:
            check_attention_loss(objective.config)
        cache = self._open_cache(objective, training, own_tokens or training.data)
        if own_tokens and not cache:
            add_teacher_tokens(training.data, own_tokens)
        return DistillationModule(student.model, objective, self.teacher, cache).to(this_device())

    def _open_cache(
        self, objective: Objective, training: Training, data: Encoded
    ) -> LayerCache | None:
        """Return the cache of the teacher's layers, and add the column `row` to the texts.

        Returns None if the teacher computes them at every step.

        Args:
            data: The teacher's tokens of the training texts.
        """
        settings = self.settings
        if settings.layers == "live":
            return None
        source = TeacherLayers(
            self.teacher,
            self.teacher_hash,
            data,
            objective.reads,
            settings.batch_tokens or BATCH_TOKENS,
        )
        if settings.layers == "auto" and self.live_is_faster(source, training):
            return None
        cache = open_layer_cache(
            source, self.folder, max_bytes=1e9 * settings.layers_gb, progress=self.progress
        )
        if cache:
            training.data.columns[ROW] = np.arange(len(training.data))
        return cache

    def live_is_faster(self, source: TeacherLayers, training: Training) -> bool:
        """Return whether computing layers is faster than a cache; never so on a CPU."""
        fit = training.fit
        device = this_device()
        if device.type == "cpu":
            return False
        precision = native_precision(fit.precision, device)
        costs = measure_layer_costs(source, self.folder, fit.batch_size, precision)
        live = costs.live_is_faster(fit.epochs)
        self.progress.say(
            f"{training.title}: the teacher's layers are "
            + ("computed at every step" if live else "cached")
            + f" (per text: {1e6 * costs.live:.0f} µs to compute, {1e6 * costs.read:.0f} to read)"
        )
        return live
