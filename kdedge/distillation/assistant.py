"""The residual assistant: a second small student that learns what the first leaves out, teacher minus student.

The answer is the sum of both logits. Each stage of boosting with squared error learns such a residual (Friedman 2001); of
distillation it is Gao et al. 2021, "Residual Error Based Knowledge Distillation". The sum costs what both cost: see `Gain`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from kdedge.data.task import Task
from kdedge.distillation.student_training import (
    DistillContext,
    StudentTraining,
    stage_inputs,
)
from kdedge.evaluation.bootstrap import bootstrap_rows, bootstrap_scores, percentile_interval
from kdedge.evaluation.latency import latencies
from kdedge.io.atomic import hash_files
from kdedge.nn.device import this_device
from kdedge.nn.text_model import TextClassifier, save_measured, score_of
from kdedge.nn.tokenization import load_tokenizer
from kdedge.recipe import RESIDUAL, BiLstmConfig, Recipe, TinyBertConfig
from kdedge.run.processes import on_main_process
from kdedge.run.stage import DEFAULT_STAGES, WEIGHTS, StageContext, stage
from kdedge.runtime import metrics
from kdedge.students.build import load_student
from kdedge.transfer.dataset import TransferSet


@dataclass(frozen=True)
class Gain:
    """What an assistant adds to its student, and what it costs.

    validation: score on the validation split minus the student's; low, high: its 95 % interval over resampled texts.
    parameters, bytes: of the assistant. alone_us, both_us: microseconds of one text in torch, student alone and with the assistant.
    """

    validation: float
    low: float
    high: float
    parameters: int
    bytes: int
    alone_us: float
    both_us: float

    @property
    def verdict(self) -> str:
        """Whether it pays, said as far as the validation split shows; the moment of its training was chosen there, which flatters it."""
        if self.low > 0:
            return "pays"
        return "does not pay" if self.validation <= 0 else "inconclusive: the interval holds zero"

    def __str__(self) -> str:
        return (
            f"{self.validation:+.4f} on the validation split [{self.low:+.4f}, {self.high:+.4f}] for {self.parameters:,} parameters, {self.bytes / 1e6:.2f} MB "
            f"and {self.both_us / self.alone_us:.2f}x the time ({self.alone_us:,.0f} -> {self.both_us:,.0f} µs in torch): {self.verdict}"
        )


def assist(
    context: DistillContext,
    student: TinyBertConfig | BiLstmConfig,
    transfer: str,
    *,
    stages: StageContext = DEFAULT_STAGES,
) -> None:
    """The stage `assistant/` beside a trained `student/`; transfer: a hash of what is learned from."""
    assert student.assistant is not None
    home = context.run.student_dirs[Recipe.student_name(student)]
    first = TextClassifier(
        load_student(home / "student").to(this_device()),
        load_tokenizer(home / "student"),
        student.max_length,
    )
    inputs = stage_inputs(context, student.assistant, RESIDUAL, transfer) | {
        "first": hash_files(home / "student", WEIGHTS),
        "residual": "centred",
    }
    title = f"assistant of {Recipe.student_name(student)}"
    assisting = _Assisting(
        context,
        student.assistant,
        RESIDUAL,
        student.assistant.fit,
        None,
        title,
        stages.progress,
        first=first,
    )
    stage(home / "assistant", inputs, assisting, stages=stages)


@dataclass(frozen=True)
class _Assisting(StudentTraining):
    """How the stage `assistant/` is made. first: the trained student."""

    first: TextClassifier | None = None

    def __call__(self, part: Path) -> dict[str, Any]:
        assert self.first is not None
        task, first = self.context.task, self.first
        said = first.predict_logits(task.validation.texts, task.validation.pairs)
        learning = replace(
            self,
            context=replace(self.context, transfer=residual(self.context, first)),
            score=lambda z: _score(task, said + z),
        )
        assistant, _, _ = learning.learn(part)
        alone = save_measured(assistant, task, part, progress=self.progress)
        return self._measured(assistant, said, alone, part)

    def _measured(
        self, assistant: TextClassifier, said: np.ndarray, alone: dict[str, Any], part: Path
    ) -> dict[str, Any]:
        """The stage's result, that of both together; test_logits.npy becomes their sum."""
        assert self.first is not None
        task, first = self.context.task, self.first
        more = assistant.predict_logits(task.validation.texts, task.validation.pairs)
        together = first.predict_logits(
            task.test.texts, task.test.pairs
        ) + assistant.predict_logits(task.test.texts, task.test.pairs)
        on_main_process(lambda: np.save(part / "test_logits.npy", together))
        low, high = gained(task, said, said + more, self.context.recipe.training_seed)
        validation = score_of(task.spec, said + more, task.validation)
        alone_us, both_us = 1e6 * np.median(
            latencies(task.validation, (first,), (first, assistant)), axis=1
        )
        gain = Gain(
            validation=validation - score_of(task.spec, said, task.validation),
            low=low,
            high=high,
            parameters=alone["parameters"],
            bytes=(part / "model.safetensors").stat().st_size,
            alone_us=float(alone_us),
            both_us=float(both_us),
        )
        both = {"test": score_of(task.spec, together, task.test), "validation": validation}
        return (
            alone
            | both
            | {
                "parameters": alone["parameters"]
                + sum(p.numel() for p in first.model.parameters()),
                "gain": asdict(gain),
            }
        )


def residual(context: DistillContext, first: TextClassifier) -> TransferSet:
    """The transfer set with teacher minus student, float32, where the teacher's logits were.

    Of classes each text's residual has mean 0: what is added to all its logits changes no answer, and KL leaves it to the student.
    """
    texts = context.transfer.texts.replace_mask_token(context.teacher.tokenizer, first.tokenizer)
    left = context.transfer.logits.astype(np.float32) - first.predict_logits(
        texts.texts, texts.pairs
    )
    return replace(
        context.transfer,
        logits=left - left.mean(1, keepdims=True)
        if context.task.spec.kind == "classification"
        else left,
    )


def gained(task: Task, before: np.ndarray, after: np.ndarray, seed: int) -> tuple[float, float]:
    """95 % interval of the gain in score from logits (N, C) `before` to `after` on the validation split, texts drawn with replacement."""
    draws = bootstrap_rows(len(task.validation), seed)
    scores = [
        bootstrap_scores(task.spec, logits, task.validation.labels, draws)
        for logits in (before, after)
    ]
    return percentile_interval(scores[1] - scores[0])


def _score(task: Task, logits: np.ndarray) -> float:
    return metrics.score(task.spec.metric, task.spec.kind, logits, task.validation.labels)
