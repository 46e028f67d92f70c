"""Measure how many augmented texts, and from which sources, improve a student."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from kdedge.data.task import Task
from kdedge.distillation.apart import keep_apart
from kdedge.evaluation.agreement import agreement_by_text, agreement_difference_error
from kdedge.recipe import AugmentConfig
from kdedge.runtime import metrics
from kdedge.transfer.dataset import TransferSet


@dataclass(frozen=True)
class Predictions:
    """A student's logits.

    Attributes:
        validation: Of the validation split. *Shape:* (N, C)
        apart: Of the texts that are kept apart from training. *Shape:* (M, C)
    """

    validation: np.ndarray
    apart: np.ndarray


TrainAndPredict = Callable[[TransferSet, TransferSet, int, Path], Predictions]
"""Train a student on the first set, as a stage in a folder, and predict the second.

The number is that of the seed: 0, 1, ...
"""

NOT_WORSE = 1.96
"""A set is as good as the best if it is behind by at most this many standard errors (95 %)."""


@dataclass(frozen=True)
class CurvePoint:
    """The results of a student that was trained on some of the texts.

    Attributes:
        size: Number of augmented texts per labelled text.
        sources: Sources of the augmented texts; empty for labelled texts alone.
        texts: Number of all training texts.
        agreement: Mean agreement with the teacher on the texts kept apart, over texts and seeds.
        validation: Mean score on the validation split over seeds; not used for the choice.
        sd: Standard deviation of the agreement over seeds; None for one seed.
        error: Standard error of the difference in agreement from the best point; 0 for that point.
    """

    size: float
    sources: tuple[str, ...]
    texts: int
    agreement: float
    validation: float
    sd: float | None = None
    error: float = 0.0

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> CurvePoint:
        return cls(**{**document, "sources": tuple(document["sources"])})


@dataclass(frozen=True)
class LearningCurve:
    """All measured points, and the one that `augment.size = "auto"` chooses.

    Attributes:
        points: Labelled texts alone, each source alone, then all helpful sources by size.
        apart: Number of texts on which the points were compared.
    """

    points: tuple[CurvePoint, ...]
    chosen: CurvePoint
    apart: int

    @property
    def best(self) -> CurvePoint:
        return max(self.points, key=lambda point: point.agreement)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> LearningCurve:
        points = tuple(CurvePoint.from_json(point) for point in document["points"])
        chosen = CurvePoint.from_json(document["chosen"])
        return cls(points, chosen, document["apart"])


def subset(transfer: TransferSet, size: float, sources: tuple[str, ...]) -> TransferSet:
    """Return the labelled texts and, for each of them, `size` new texts from `sources`."""
    labelled = transfer.texts.labelled
    augmented = transfer.texts.rows(*sources)[: round(size * len(labelled))]
    return transfer.take(np.concatenate([labelled, augmented]))


def fit_learning_curve(
    config: AugmentConfig,
    transfer: TransferSet,
    task: Task,
    train_and_predict: TrainAndPredict,
    folder: Path,
) -> LearningCurve:
    """Train on more and more texts and choose the smallest set that is as good as the best.

    Sets are compared by how well their students agree with the teacher on `config.apart` new texts
    that no student learns from. This needs no labels, so there can be more texts than in a
    validation split. A source with less agreement than the labelled texts alone is left out. The
    chosen point is the smallest set that is not significantly behind the best. The comparison is
    paired by text and by seed: each set is trained from `config.seeds` seeds. With one seed, the
    error covers the choice of texts but not that of the seed.
    """
    fitter = CurveFitter(config, transfer, task, train_and_predict, folder)
    fitter.measure(0.0, ())
    sources = fitter.helpful_sources()
    for size in fitter.sizes_with_new_texts(sources):
        if not fitter.has_measured(size, sources):
            fitter.measure(size, sources)
    return fitter.choose_smallest(sources)


@dataclass(frozen=True)
class _Measurement:
    """A point, and its agreement (S, M): for S seeds, on M texts kept apart."""

    requested_size: float
    point: CurvePoint
    agreement: np.ndarray


class CurveFitter:
    """Measures the points of a learning curve one by one."""

    def __init__(
        self,
        config: AugmentConfig,
        transfer: TransferSet,
        task: Task,
        train_and_predict: TrainAndPredict,
        folder: Path,
    ) -> None:
        parts = keep_apart(transfer, config.apart)
        self.config = config
        self.transfer = parts.training
        self.apart = parts.apart
        self.task = task
        self.train_and_predict = train_and_predict
        self.folder = folder
        self.sizes = sorted(set(config.curve))
        self.measurements: list[_Measurement] = []

    def measure(self, size: float, sources: tuple[str, ...]) -> CurvePoint:
        """Train on `size` texts per labelled text from these sources, once per seed."""
        part = subset(self.transfer, size, sources)
        parent = self.folder / ("+".join(sources) or "labelled")
        agreement = []
        scores = []
        for number in range(self.config.seeds):
            folder = parent / (f"{size:g}-seed{number}" if number else f"{size:g}")
            logits = self.train_and_predict(part, self.apart, number, folder)
            by_text = agreement_by_text(self.task.spec, logits.apart, self.apart.logits)
            agreement.append(by_text)
            scores.append(self._score(logits.validation))
        by_seed = np.stack(agreement).mean(1) if len(self.apart) else np.zeros(len(scores))
        point = CurvePoint(
            size=len(part) / len(part.texts.labelled) - 1,
            sources=sources,
            texts=len(part),
            agreement=float(np.mean(by_seed)),
            validation=float(np.mean(scores)),
            sd=float(np.std(by_seed, ddof=1)) if len(scores) > 1 else None,
        )
        self.measurements.append(_Measurement(size, point, np.stack(agreement)))
        return point

    def has_measured(self, size: float, sources: tuple[str, ...]) -> bool:
        return any(
            (done.requested_size, done.point.sources) == (size, sources)
            for done in self.measurements
        )

    def helpful_sources(self) -> tuple[str, ...]:
        """Measure each source alone; return those that are no worse than labelled texts alone.

        A single source is returned without being measured.
        """
        origins = dict.fromkeys(self.transfer.texts.origins)
        sources = [origin for origin in origins if origin != "labelled"]
        if len(sources) < 2:
            return tuple(sources)
        baseline = self.measurements[0].point.agreement
        helpful = []
        for source in sources:
            if self.measure(self.sizes[0], (source,)).agreement >= baseline:
                helpful.append(source)
        return tuple(helpful)

    def sizes_with_new_texts(self, sources: tuple[str, ...]) -> list[float]:
        """Return the sizes of the curve that have more texts than the size before."""
        sizes = []
        previous = len(self.transfer.texts.labelled)
        for size in self.sizes:
            texts = len(subset(self.transfer, size, sources))
            if texts > previous:
                sizes.append(size)
            previous = texts
        return sizes

    def choose_smallest(self, sources: tuple[str, ...]) -> LearningCurve:
        """Return the curve; its chosen point is the smallest set that is as good as the best.

        A candidate holds no augmented texts, or those of all helpful `sources`. If none is as good
        as the best point, the best point is chosen.
        """
        best = max(self.measurements, key=lambda measurement: measurement.point.agreement)
        points = []
        candidates = []
        for measurement in self.measurements:
            point = replace(measurement.point, error=_error(best, measurement))
            points.append(point)
            behind = best.point.agreement - point.agreement
            if behind <= NOT_WORSE * point.error and point.sources in ((), sources):
                candidates.append(point)
        chosen = min(candidates, key=lambda point: point.texts, default=best.point)
        return LearningCurve(tuple(points), chosen, len(self.apart))

    def _score(self, logits: np.ndarray) -> float:
        spec = self.task.spec
        labels = self.task.validation.labels
        return metrics.score(spec, logits, labels)


def _error(best: _Measurement, other: _Measurement) -> float:
    if other is best or not best.agreement.size:
        return 0.0
    return agreement_difference_error(best.agreement, other.agreement)
