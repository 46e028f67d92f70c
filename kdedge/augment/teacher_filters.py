"""The filters that need the teacher's answer: how sure it is, whether a second one agrees, and how labels are shared out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from scipy.special import softmax

from kdedge.augment.filters import balanced, confident
from kdedge.data.task import Task
from kdedge.errors import UsageError
from kdedge.io.atomic import hash_files
from kdedge.io.paths import resolve_model_path
from kdedge.recipe import FilterConfig
from kdedge.run.stage import WEIGHTS
from kdedge.runtime.spec import TaskSpec
from kdedge.teacher.finetune import has_head, load_teacher
from kdedge.transfer.dataset import FilterResult, TeacherFilter
from kdedge.transfer.texts import TransferTexts

BLOCK = 65536
TEACHER_FILTERS = {"confidence", "balance", "agree_with"}


def teacher_filter_settings(filters: FilterConfig) -> dict[str, Any]:
    """What decides a verdict beside texts and logits."""
    place = resolve_model_path(filters.agree_with) if filters.agree_with else None
    return filters.model_dump(mode="json", include=TEACHER_FILTERS) | (
        {"second": hash_files(place, WEIGHTS)} if place else {}
    )


def check_teacher_filters(filters: FilterConfig, spec: TaskSpec) -> None:
    """Raises UsageError where a gate cannot be asked of this task, or its second teacher cannot answer it."""
    if spec.kind != "classification":
        for key, unasked in (
            ("confidence", filters.confidence == (0.0, 1.0)),
            ("agree_with", filters.agree_with is None),
        ):
            if not unasked:
                raise UsageError(
                    f"augment.filters.{key} asks for a class",
                    f"the task is {spec.kind}",
                    "take the gate out",
                )
    if filters.agree_with and not has_head(filters.agree_with, spec):
        found = f"{filters.agree_with} has no head for {spec.outputs} labels"
        raise UsageError(
            "augment.filters.agree_with is no classifier of this task",
            found,
            "name a fine-tuned one, or take the gate out",
        )


def teacher_filter(
    filters: FilterConfig, task: Task, max_length: int, precision: str = "auto"
) -> TeacherFilter:
    """A judge of made texts; labelled ones always stay. precision: in which a second teacher computes. Of a regression no gate here can be asked: nothing is a class."""

    def judge(texts: TransferTexts, answers: Iterable[np.ndarray]) -> FilterResult:
        kept = np.ones(len(texts), dtype=bool)
        rejected: dict[str, int] = {}
        made = ~texts.origins.among(("labelled",))
        if task.spec.kind != "classification" or not made.any():
            return FilterResult(kept, rejected)
        labels, chances = _answered(answers)

        def ask(reason: str, passes: Callable[[np.ndarray], np.ndarray]) -> None:
            rows = np.flatnonzero(made & kept)
            fails = rows[~passes(rows)]
            kept[fails] = False
            rejected[reason] = len(fails)

        if filters.confidence != (0.0, 1.0):
            ask("confidence", lambda rows: confident(chances[rows], filters.confidence))
        if filters.agree_with:
            second = load_teacher(filters.agree_with, task.spec, max_length)

            def agrees(rows: np.ndarray) -> np.ndarray:
                blocks = (
                    texts.take(rows[start : start + BLOCK]) for start in range(0, len(rows), BLOCK)
                )
                said = [
                    second.predict_logits(some.texts, some.pairs, precision=precision).argmax(1)
                    for some in blocks
                ]
                return np.asarray(np.concatenate([np.zeros(0, np.int64), *said]) == labels[rows])

            ask("second teacher", agrees)
        if filters.balance is not None:
            ask(
                "balance",
                lambda rows: balanced(labels[rows], task.train.labels, filters.balance or 1.0),
            )
        return FilterResult(kept, rejected)

    return judge


def _answered(answers: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The likeliest label (N,) and its probability (N,), of logits that come in blocks (n, C)."""
    blocks = [(some.argmax(1), softmax(some.astype(np.float32), axis=1).max(1)) for some in answers]
    return np.concatenate([label for label, _ in blocks]), np.concatenate(
        [chance for _, chance in blocks]
    )
