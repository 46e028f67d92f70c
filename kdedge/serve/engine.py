"""Classify the texts of a server: with one classifier, or with a cascade."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from kdedge.cascade import Cascade, CascadeAnswer
from kdedge.cascade.cascade import only_audits
from kdedge.errors import MachineError
from kdedge.runtime import Classifier, Prediction
from kdedge.serve.batching import MicroBatcher, Row
from kdedge.serve.limits import Limits, RequestError, busy
from kdedge.serve.metrics import ServerMetrics

TEACHER_THREADS = 16
"""Most requests that wait for the teacher's answer at once. The others wait for a thread."""

AUDIT_TIME = 0.5
"""Share of a request's time limit in which the teacher must have answered, if its answer is only an
audit. Then the student's answer stands."""


class Engine(ABC):
    """Classifies the rows of requests; several requests share a batch of the model."""

    is_cascade = False

    def __init__(self, student: Classifier, limits: Limits, metrics: ServerMetrics) -> None:
        self._pair = student.spec.pair
        self._limits = limits
        self._metrics = metrics
        self._batcher = MicroBatcher(self._run, limits, metrics.batches.observe)
        metrics.waiting.set_function(lambda: self._batcher.waiting_rows)

    @abstractmethod
    async def predict(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """Return one JSON object for each row."""

    @abstractmethod
    def _run(self, rows: Sequence[Row]) -> list[Any]:
        """Run the model on one batch; return one answer for each row."""

    async def close(self) -> None:
        """Answer the requests that wait, and stop the thread of the model."""
        await self._batcher.close()

    def _columns(self, rows: Sequence[Row]) -> tuple[list[str], list[str] | None]:
        """Return the first texts of rows, and the second ones for a classifier of pairs."""
        texts = [row[0] for row in rows]
        return texts, [row[1] or "" for row in rows] if self._pair else None


class ClassifierEngine(Engine):
    """Classifies with one classifier."""

    def __init__(self, classifier: Classifier, limits: Limits, metrics: ServerMetrics) -> None:
        super().__init__(classifier, limits, metrics)
        self._classifier = classifier

    async def predict(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        predictions = await self._batcher.submit(rows)
        self._metrics.truncated.inc(sum(prediction.truncated for prediction in predictions))
        return [prediction.to_json() for prediction in predictions]

    def _run(self, rows: Sequence[Row]) -> list[Prediction]:
        return self._classifier.predict_batch(*self._columns(rows), self._limits.batch)


class CascadeEngine(Engine):
    """Classifies with a cascade; requests that need the teacher do not delay the others."""

    is_cascade = True

    def __init__(self, cascade: Cascade, limits: Limits, metrics: ServerMetrics) -> None:
        super().__init__(cascade.student, limits, metrics)
        self._cascade = cascade
        self._asked = 0  # Texts that wait for the teacher.
        self._threads = ThreadPoolExecutor(TEACHER_THREADS, thread_name_prefix="kdedge-teacher")
        metrics.audited.set_function(lambda: cascade.drift.audited)
        metrics.agreed.set_function(lambda: cascade.drift.agreed)
        metrics.skipped.set_function(lambda: cascade.drift.skipped)
        metrics.drifted.set_function(lambda: cascade.drift.drifted)

    async def predict(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        started = asyncio.get_running_loop().time()
        answers = await self._batcher.submit(rows)
        if any(answer.source == "teacher" for answer in answers):
            answers = await self._complete(answers, rows, started)
        for answer in answers:
            self._metrics.answers.labels(answer.source, answer.reason).inc()
        self._metrics.truncated.inc(sum(answer.student.truncated for answer in answers))
        return [answer.to_json() for answer in answers]

    async def close(self) -> None:
        await super().close()
        self._threads.shutdown(wait=False)

    async def _complete(
        self, answers: list[CascadeAnswer], rows: Sequence[Row], started: float
    ) -> list[CascadeAnswer]:
        """Ask the teacher; skip audits if it is busy, too slow, or gives no answer."""
        if not only_audits(answers):
            return await self._ask_teacher(answers, rows)
        try:
            async with asyncio.timeout_at(started + AUDIT_TIME * self._limits.seconds):
                return await self._ask_teacher(answers, rows)
        except (RequestError, MachineError, TimeoutError):
            return self._cascade.skip_audits(answers)

    async def _ask_teacher(
        self, answers: list[CascadeAnswer], rows: Sequence[Row]
    ) -> list[CascadeAnswer]:
        """Ask the teacher. Raises RequestError 429 if too many texts wait for it already."""
        count = sum(answer.source == "teacher" for answer in answers)
        if self._asked + count > self._limits.queue:
            raise busy(self._asked, self._limits)
        self._asked += count
        try:
            ask = partial(self._cascade.missing_labels, answers, *self._columns(rows))
            labels = await asyncio.get_running_loop().run_in_executor(self._threads, ask)
        finally:
            self._asked -= count
        # Here and not in the thread: audits that were given up must not be counted later.
        return self._cascade.with_labels(answers, labels)

    def _run(self, rows: Sequence[Row]) -> list[CascadeAnswer]:
        return self._cascade.ask_student(*self._columns(rows), self._limits.batch)
