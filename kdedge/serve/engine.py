"""What answers the texts of a server: a classifier, or a cascade with its teacher."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from kdedge.cascade import Cascade, CascadeAnswer
from kdedge.runtime import Classifier, Prediction
from kdedge.serve.batching import MicroBatcher, Row
from kdedge.serve.limits import Limits
from kdedge.serve.metrics import ServerMetrics


class Engine(Protocol):
    """Answers the rows of one request."""

    async def predict(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """Return one JSON object for each row."""
        ...

    async def close(self) -> None:
        """Answer what waits, and free threads."""
        ...


def split_rows(rows: Sequence[Row], *, pair: bool) -> tuple[list[str], list[str] | None]:
    """Return the first and the second texts of rows."""
    texts = [row[0] for row in rows]
    return texts, [row[1] or "" for row in rows] if pair else None


class ClassifierEngine:
    """Answers with one classifier."""

    def __init__(self, classifier: Classifier, limits: Limits, metrics: ServerMetrics) -> None:
        self._classifier = classifier
        self._metrics = metrics
        self._batcher = MicroBatcher(self._run, limits, metrics.batches.observe)
        metrics.waiting.set_function(lambda: self._batcher.waiting_rows)

    async def predict(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        predictions = await self._batcher.submit(rows)
        self._metrics.truncated.inc(sum(prediction.truncated for prediction in predictions))
        return [prediction.to_json() for prediction in predictions]

    async def close(self) -> None:
        await self._batcher.close()

    def _run(self, rows: Sequence[Row]) -> list[Prediction]:
        texts, pairs = split_rows(rows, pair=self._classifier.spec.pair)
        return self._classifier.predict_batch(texts, pairs)


class CascadeEngine:
    """Answers with a cascade; requests that need the teacher do not hold up the others."""

    def __init__(self, cascade: Cascade, limits: Limits, metrics: ServerMetrics) -> None:
        self._cascade = cascade
        self._metrics = metrics
        self._batcher = MicroBatcher(self._run, limits, metrics.batches.observe)
        metrics.waiting.set_function(lambda: self._batcher.waiting_rows)
        metrics.audited.set_function(lambda: cascade.drift.audited)
        metrics.agreed.set_function(lambda: cascade.drift.agreed)
        metrics.drifted.set_function(lambda: cascade.drift.drifted)

    async def predict(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        answers = await self._batcher.submit(rows)
        if any(answer.source == "teacher" for answer in answers):
            texts, pairs = split_rows(rows, pair=self._cascade.student.spec.pair)
            answers = await asyncio.to_thread(self._cascade.complete, answers, texts, pairs)
        for answer in answers:
            self._metrics.answers.labels(answer.source, answer.reason).inc()
        self._metrics.truncated.inc(sum(answer.student.truncated for answer in answers))
        return [answer.to_json() for answer in answers]

    async def close(self) -> None:
        await self._batcher.close()

    def _run(self, rows: Sequence[Row]) -> list[CascadeAnswer]:
        texts, pairs = split_rows(rows, pair=self._cascade.student.spec.pair)
        return self._cascade.ask_student(texts, pairs)
