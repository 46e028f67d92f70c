"""The gates that need the teacher's answer: how sure it is, whether a second one agrees, and how labels are shared out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import softmax

from kdedge.augment import TransferTexts
from kdedge.augment.gates import balanced, confident
from kdedge.data.task import Task
from kdedge.places import resolve_folder
from kdedge.recipe import Gates
from kdedge.rundir import hash_files
from kdedge.teacher import WEIGHTS, load_teacher
from kdedge.transfer import Judge, Verdict

TEACHER_GATES = {"confidence", "balance", "agree_with"}


def teacher_gates(gates: Gates) -> dict[str, Any]:
    """What decides a verdict beside texts and logits."""
    place = resolve_folder(gates.agree_with) if gates.agree_with else None
    return gates.model_dump(mode="json", include=TEACHER_GATES) | ({"second": hash_files(place, WEIGHTS)} if place else {})


def judge_by(gates: Gates, task: Task, max_length: int) -> Judge:
    """A judge of made texts; gold ones always stay. Of a regression no gate here can be asked: nothing is a class."""

    def judge(texts: TransferTexts, logits: np.ndarray) -> Verdict:
        kept = np.ones(len(texts), dtype=bool)
        refused: dict[str, int] = {}
        made = np.array([origin != "gold" for origin in texts.origins], dtype=bool)
        if task.spec.kind != "classification" or not made.any():
            return Verdict(kept, refused)

        def ask(reason: str, passes: Callable[[np.ndarray], np.ndarray]) -> None:
            rows = np.flatnonzero(made & kept)
            fails = rows[~passes(rows)]
            kept[fails] = False
            refused[reason] = len(fails)

        chances = softmax(logits, axis=1)
        if gates.confidence != (0.0, 1.0):
            ask("confidence", lambda rows: confident(chances[rows], gates.confidence))
        if gates.agree_with:
            second = load_teacher(gates.agree_with, task.spec, max_length)

            def agrees(rows: np.ndarray) -> np.ndarray:
                some = texts.take(rows)
                return np.asarray(second.annotate(some.texts, some.pairs).argmax(1) == logits[rows].argmax(1))

            ask("second teacher", agrees)
        if gates.balance is not None:
            ask("balance", lambda rows: balanced(logits[rows].argmax(1), task.train.labels, gates.balance or 1.0))
        return Verdict(kept, refused)

    return judge
