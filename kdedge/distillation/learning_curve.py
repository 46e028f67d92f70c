"""Measure how many augmented texts, and from which sources, improve a student."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from kdedge.data.task import Split, Task
from kdedge.evaluation.bootstrap import bootstrap_rows, bootstrap_scores
from kdedge.recipe import AugmentConfig
from kdedge.runtime import metrics
from kdedge.transfer.dataset import TransferSet

TrainAndPredict = Callable[[TransferSet, int, Path], np.ndarray]
"""Train a student on a transfer set, with seed number 0, 1, ..., as a stage in a folder.

Returns its logits (N, C) on the validation split.
"""

RESAMPLES = 500


@dataclass(frozen=True)
class CurvePoint:
    """The score of a student on the validation split after training on some of the texts.

    Attributes:
        size: Augmented texts per labelled text.
        sources: Their origins; empty for labelled texts alone.
        texts: Number of all texts.
        validation: Mean score over seeds.
        sd: Standard deviation over seeds; None for one seed.
        error: Standard error of the difference from the best point; 0 for the best point.
    """

    size: float
    sources: tuple[str, ...]
    texts: int
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
    """

    points: tuple[CurvePoint, ...]
    chosen: CurvePoint

    @property
    def best(self) -> CurvePoint:
        return max(self.points, key=lambda point: point.validation)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> LearningCurve:
        points = tuple(CurvePoint.from_json(point) for point in document["points"])
        return cls(points, CurvePoint.from_json(document["chosen"]))


def subset(transfer: TransferSet, size: float, sources: tuple[str, ...]) -> TransferSet:
    """Return the labelled texts and the first `size` texts of the sources per labelled text."""
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

    A source that scores below the labelled texts alone is left out. The chosen point is the
    smallest set whose distance to the best is within the standard error of that difference
    (Breiman et al. 1984, section 3.4.3, here with paired predictions: texts that two students both
    get wrong do not tell which is better). Each set is trained from `config.seeds` seeds. With one
    seed, the error covers the choice of texts but not that of the seed.
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
    """A point of the curve. logits: (S, N, C) from S seeds on the validation split."""

    requested_size: float
    point: CurvePoint
    logits: np.ndarray


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
        self.config = config
        self.transfer = transfer
        self.task = task
        self.train_and_predict = train_and_predict
        self.folder = folder
        self.sizes = sorted(set(config.curve))
        self.measurements: list[_Measurement] = []

    def measure(self, size: float, sources: tuple[str, ...]) -> CurvePoint:
        """Train on `size` texts per labelled text from these sources, once per seed."""
        part = subset(self.transfer, size, sources)
        parent = self.folder / ("+".join(sources) or "labelled")
        predictions = []
        scores = []
        for number in range(self.config.seeds):
            folder = parent / (f"{size:g}-seed{number}" if number else f"{size:g}")
            logits = self.train_and_predict(part, number, folder)
            predictions.append(logits)
            scores.append(self._score(logits))
        point = CurvePoint(
            size=len(part) / len(part.texts.labelled) - 1,
            sources=sources,
            texts=len(part),
            validation=float(np.mean(scores)),
            sd=float(np.std(scores, ddof=1)) if len(scores) > 1 else None,
        )
        self.measurements.append(_Measurement(size, point, np.stack(predictions)))
        return point

    def has_measured(self, size: float, sources: tuple[str, ...]) -> bool:
        return any(
            (done.requested_size, done.point.sources) == (size, sources)
            for done in self.measurements
        )

    def helpful_sources(self) -> tuple[str, ...]:
        """Measure each source alone; return those not below the labelled texts alone.

        A single source is returned without being measured.
        """
        origins = dict.fromkeys(self.transfer.texts.origins)
        sources = [origin for origin in origins if origin != "labelled"]
        if len(sources) < 2:
            return tuple(sources)
        baseline = self.measurements[0].point.validation
        helpful = []
        for source in sources:
            if self.measure(self.sizes[0], (source,)).validation >= baseline:
                helpful.append(source)
        return tuple(helpful)

    def sizes_with_new_texts(self, sources: tuple[str, ...]) -> list[float]:
        """Return the sizes of the curve that add texts to the size before."""
        sizes = []
        previous = len(self.transfer.texts.labelled)
        for size in self.sizes:
            texts = len(subset(self.transfer, size, sources))
            if texts > previous:
                sizes.append(size)
            previous = texts
        return sizes

    def choose_smallest(self, sources: tuple[str, ...]) -> LearningCurve:
        """Return the curve; chosen is the smallest set that is as good as the best.

        A candidate holds no augmented texts, or those of all helpful `sources`. If none is as good
        as the best point, the best point is chosen.
        """
        best = max(self.measurements, key=lambda measurement: measurement.point.validation)
        points = []
        candidates = []
        for measurement in self.measurements:
            point = replace(measurement.point, error=self._error(best, measurement))
            points.append(point)
            as_good = point.validation >= best.point.validation - point.error
            if as_good and point.sources in ((), sources):
                candidates.append(point)
        chosen = min(candidates, key=lambda point: point.texts, default=best.point)
        return LearningCurve(tuple(points), chosen)

    def _error(self, best: _Measurement, other: _Measurement) -> float:
        if other is best:
            return 0.0
        return difference_error(self.task, best.logits, other.logits, self.task.validation)

    def _score(self, logits: np.ndarray) -> float:
        spec = self.task.spec
        labels = self.task.validation.labels
        return metrics.score(spec.metric, spec.kind, logits, labels, spec.threshold)


def difference_error(task: Task, first: np.ndarray, second: np.ndarray, split: Split) -> float:
    """Estimate the standard error of the difference between two students' scores.

    The error over texts comes from bootstrap samples of the split, the same for both students
    (Efron 1979). The error over seeds comes from the differences at equal seeds.

    Args:
        first: Logits from S seeds on the split. *Shape:* (S, N, C)
        second: Logits of the other student from the same seeds.
    """
    resamples = bootstrap_rows(len(split), seed=0, count=RESAMPLES)
    over_texts = np.nanstd(_differences(task, first, second, split, resamples).mean(0))
    if len(first) == 1:
        return float(over_texts)
    all_texts = np.arange(len(split))[None]
    differences = _differences(task, first, second, split, all_texts)[:, 0]
    over_seeds = np.std(differences, ddof=1) / np.sqrt(len(differences))
    return float(np.hypot(over_texts, over_seeds))


def _differences(
    task: Task, first: np.ndarray, second: np.ndarray, split: Split, resamples: np.ndarray
) -> np.ndarray:
    """(S, R) score differences of S seeds on R resamples (R, N) of the split."""
    differences = []
    for first_logits, second_logits in zip(first, second, strict=True):
        first_scores = bootstrap_scores(task.spec, first_logits, split.labels, resamples)
        second_scores = bootstrap_scores(task.spec, second_logits, split.labels, resamples)
        differences.append(first_scores - second_scores)
    return np.stack(differences)
