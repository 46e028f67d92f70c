"""A student that answers if it is likely to agree with its teacher, else asks the teacher."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kdedge.cascade.drift import DriftMonitor, DriftStatus
from kdedge.cascade.teachers import SHOWN_LABELS, AskTeacher, Label, Pairs, open_teacher
from kdedge.errors import CheckFailed, MachineError, UsageError
from kdedge.runtime import Bundle, Classifier, Prediction
from kdedge.runtime.agreement import Threshold, confidence, usualness
from kdedge.runtime.text_arguments import read_arguments, read_list
from kdedge.wording import listed

AUDIT_SHARE = 0.01
"""Share of the student's own answers that the teacher checks."""

Reason = Literal["confident", "unsure", "unusual"]


@dataclass(frozen=True)
class CascadeAnswer:
    """The answer to one text.

    Attributes:
        label: The label; for a multilabel task a tuple of labels.
        source: Whether the label is the student's or the teacher's.
        reason: `confident`: the student answers. `unsure`: its confidence is too low. `unusual`:
            the text is unlike those that it was trained on.
        student: The student's own prediction.
        audited: Whether the teacher was asked although the student was confident. Then the label
            is the teacher's.
    """

    label: Label
    source: Literal["student", "teacher"]
    reason: Reason
    student: Prediction
    audited: bool = False

    def to_json(self) -> dict[str, Any]:
        label = list(self.label) if isinstance(self.label, tuple) else self.label
        return {
            "label": label,
            "source": self.source,
            "reason": self.reason,
            "student": self.student.to_json(),
            "audited": self.audited,
        }


class Cascade:
    """Answers with a student if it is likely to agree with its teacher, else with the teacher.

    `AgreementTable.threshold` chooses the least confidence on the validation texts of the bundle.
    With a probability of 95 %, at least the share `agreement` of the student's own answers agrees
    with the teacher, for texts of the same kind as the validation texts. The teacher checks a
    share of the student's answers; `drift` shows whether the promise still holds.

    One instance may serve many threads at once.

    Args:
        student: A classifier whose bundle has an agreement table, or the bundle.
        teacher: A function from texts and pairs to labels, a classifier, a bundle, or the address
            of a server such as `kdedge serve`.
        agreement: Share of the student's own answers that must agree with the teacher.
        audit_share: Share of the student's own answers that the teacher checks.
        seed: Seed of the choice of audited texts.

    Raises:
        UsageError: If the bundle has no agreement table or predicts a number, the teacher is none
            of these or a bundle of another task, a share is not between 0 and 1, or the seed is no
            whole number.
        CheckFailed: If no threshold keeps the agreement.
        IntegrityError: If a bundle is damaged.

    Example:
        ```python
        cascade = kdedge.Cascade("runs/quickstart/bilstm/bundle", ask_teacher, agreement=0.95)
        answer = cascade.predict("Shares fell after the bank's warning")
        answer.label, answer.source
        cascade.drift.drifted
        ```
    """

    def __init__(
        self,
        student: Classifier | Bundle | str | Path,
        teacher: AskTeacher | Classifier | Bundle | str | Path,
        agreement: float = 0.99,
        *,
        audit_share: float = AUDIT_SHARE,
        seed: int | None = None,
    ) -> None:
        _check_audits(audit_share, seed)
        if not isinstance(student, Classifier):
            student = Classifier.load(student)
        self.student = student
        self.threshold: Threshold = student.agreement_table().threshold(agreement)
        self.audit_share = audit_share
        self._ask = open_teacher(teacher, student.spec)
        self._names = frozenset(student.spec.labels)
        self._monitor = DriftMonitor(agreement)
        self._random = random.Random(seed)
        self._lock = threading.Lock()

    @property
    def drift(self) -> DriftStatus:
        """The result of the audits so far."""
        return self._monitor.status

    def predict(self, texts: Any) -> CascadeAnswer | list[CascadeAnswer]:
        """Answer one text or pair, or each of several, as `Classifier.predict` does.

        Raises:
            UsageError: If `texts` is neither text nor list of texts.
            DataError: If a text cannot be encoded.
            CheckFailed: If the teacher does not give one label for each text.
            MachineError: If the teacher's server gives no answer.
        """
        given = read_arguments(texts, reads_pairs=self.student.spec.pair)
        answers = self.predict_batch(given.texts, given.pairs)
        return answers[0] if given.single else answers

    def predict_batch(
        self, texts: Iterable[str], pairs: Iterable[str] | None = None
    ) -> list[CascadeAnswer]:
        """Answer N texts, in their order, with at most one call of the teacher.

        Raises:
            UsageError: If `texts` or `pairs` is one string, a dict, a set or a table.
            DataError: If a text cannot be encoded.
            CheckFailed: If the teacher does not give one label for each text.
            MachineError: If the teacher's server gives no answer.
        """
        message = "predict_batch reads a list of texts"
        texts = read_list(texts, message, "put the text into a list, or call predict")
        if pairs is not None:
            pairs = read_list(pairs, message, "give a list of second texts")
        return self.complete(self.ask_student(texts, pairs), texts, pairs)

    def complete(
        self, student: Sequence[CascadeAnswer], texts: Sequence[str], pairs: Pairs
    ) -> list[CascadeAnswer]:
        """Ask the teacher for the labels that `ask_student` has left to it.

        If the teacher's server gives no answer, and all texts were to be audited only, the
        student's answers stand.

        Raises:
            MachineError: If the teacher's server gives no answer.
            CheckFailed: If the teacher does not give one label for each text.
        """
        try:
            labels = self.missing_labels(student, texts, pairs)
        except MachineError:
            if not only_audits(student):
                raise
            return self.skip_audits(student)
        return self.with_labels(student, labels)

    def missing_labels(
        self, student: Sequence[CascadeAnswer], texts: Sequence[str], pairs: Pairs
    ) -> list[Label]:
        """Return the labels of the teacher that `ask_student` has left to it, in their order.

        Raises:
            MachineError: If the teacher's server gives no answer.
            CheckFailed: If the teacher does not give one label for each text.
        """
        asked = [i for i, answer in enumerate(student) if answer.source == "teacher"]
        if not asked:
            return []
        asked_pairs = None if pairs is None else [pairs[i] for i in asked]
        return self.ask_teacher([texts[i] for i in asked], asked_pairs)

    def with_labels(
        self, student: Sequence[CascadeAnswer], labels: Sequence[Label]
    ) -> list[CascadeAnswer]:
        """Put the labels of `missing_labels` into the answers, and count the audits."""
        answers = list(student)
        asked = [i for i, answer in enumerate(answers) if answer.source == "teacher"]
        for i, label in zip(asked, labels, strict=True):
            if answers[i].audited:
                self._monitor.add(label == answers[i].student.label)
            answers[i] = replace(answers[i], label=label)
        return answers

    def skip_audits(self, student: Sequence[CascadeAnswer]) -> list[CascadeAnswer]:
        """Return the student's own answers; only for texts that do not need the teacher."""
        self._monitor.skip(sum(answer.audited for answer in student))
        return [replace(answer, source="student", audited=False) for answer in student]

    def ask_student(
        self, texts: Sequence[str], pairs: Pairs, batch_size: int = 32
    ) -> list[CascadeAnswer]:
        """Predict N texts with the student; `source` marks those that need the teacher."""
        if not texts:
            return []
        logits, predictions = self.student.predict_with_logits(texts, pairs, batch_size)
        sure = confidence(self.student.spec, logits, self.student.temperature)
        usual = usualness(logits)
        answers = []
        for i, prediction in enumerate(predictions):
            reason = self._reason(float(sure[i]), float(usual[i]))
            audited = reason == "confident" and self._is_audited()
            source: Literal["student", "teacher"] = "teacher"
            if reason == "confident" and not audited:
                source = "student"
            answers.append(CascadeAnswer(prediction.label, source, reason, prediction, audited))
        return answers

    def ask_teacher(self, texts: Sequence[str], pairs: Pairs) -> list[Label]:
        """Return the teacher's labels of N texts.

        Raises:
            CheckFailed: If it gives another number of labels, or something other than labels of
                the task.
        """
        answer = self._ask(texts, pairs)
        no_list = isinstance(answer, str | bytes | Mapping | AbstractSet)
        if no_list or not isinstance(answer, Iterable):
            raise _no_labels(f"{answer!r:.60} ({type(answer).__name__})")
        given = list(answer)
        if len(given) != len(texts):
            raise _no_labels(f"{len(given)} labels for {len(texts)} texts")
        return [self._read_label(label) for label in given]

    def _read_label(self, label: Any) -> Label:
        """Return a label of the teacher; for label sets a tuple, in the order of the task."""
        if self.student.spec.kind != "multilabel":
            return self._read_name(label)
        if isinstance(label, str | bytes | Mapping) or not isinstance(label, Iterable):
            raise _no_labels(f"{label!r:.60} is no list of labels")
        names = {self._read_name(name) for name in label}
        return tuple(name for name in self.student.spec.labels if name in names)

    def _read_name(self, name: Any) -> str:
        if isinstance(name, str) and name in self._names:
            return name
        known = listed(self.student.spec.labels, SHOWN_LABELS)
        raise _no_labels(f"{name!r:.60} is no label of this task, which has {known}")

    def _reason(self, sure: float, usual: float) -> Reason:
        if usual < self.threshold.usualness:
            return "unusual"
        return "confident" if sure >= self.threshold.confidence else "unsure"

    def _is_audited(self) -> bool:
        with self._lock:
            return self._random.random() < self.audit_share


def only_audits(answers: Iterable[CascadeAnswer]) -> bool:
    """Return whether the teacher is asked only for audits."""
    return all(answer.audited for answer in answers if answer.source == "teacher")


def _check_audits(share: Any, seed: Any) -> None:
    if not isinstance(share, int | float | np.floating) or not 0 <= share <= 1:
        raise UsageError("audit_share must lie between 0 and 1", repr(share), "give 0.01")
    if seed is not None and not isinstance(seed, int):
        raise UsageError("seed must be a whole number", repr(seed), "leave it out, or give 0")


def _no_labels(detail: str) -> CheckFailed:
    return CheckFailed(
        "the teacher must give one label for each text",
        detail,
        "let it return a list with the name of a label for each text",
    )
