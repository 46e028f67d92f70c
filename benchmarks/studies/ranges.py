"""Do 8-bit weights help calibration, and do learned ranges help QAT?

    python benchmarks/studies/ranges.py [--untuned] runs/trec-vocabulary/eleven-thousand \
        runs/trec-vocabulary-seed1/eleven-thousand ...

QAT runs with fixed ranges, and with ranges that learn at several rates. Torch computes in the
integers of the int8 file. Each STUDENT is a student's folder in a run. Every student is tuned,
even if `kdedge export` would not tune it. The checkpoint is the one whose logits on the
validation split are nearest to those of the float student. The table shows the test split.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kdedge.export.options import INT8
from kdedge.export.parity import compare_logits
from kdedge.export.prepare import transfer_set_of
from kdedge.export.qat import calibrated
from kdedge.export.qat_training import QatData, tune

from kdedge.cli.console import ConsoleProgress
from kdedge.data import load_task
from kdedge.nn.batching import Encoded
from kdedge.nn.inference import predict_logits
from kdedge.nn.text_model import TextClassifier
from kdedge.nn.tokenization import load_tokenizer
from kdedge.run.layout import RunDir
from kdedge.runtime.metrics import score
from kdedge.students.build import load_student

EIGHT_BITS = "calibrated, weights of 8 bits"
VARIANTS: dict[str, dict[str, Any] | None] = {
    "calibrated": None,
    EIGHT_BITS: None,
    "weights alone": {"learn_ranges": False},
    "and ranges at 0.0005": {"range_learning_rate": 5e-4},
    "and ranges at 0.002": {"range_learning_rate": 2e-3},
    "and ranges at 0.008": {"range_learning_rate": 8e-3},
}
"""Variant -> changes in the recipe's [student.quantize]; None: calibrated but not tuned."""

HEADER = (
    "run",
    "tuned",
    "score",
    "same predictions as float",
    "logit difference from float, rms",
    "ends moved, median",
)


@dataclass(frozen=True)
class Experiment:
    """A student, its data and its float logits."""

    student: TextClassifier
    data: QatData
    test: Encoded
    test_logits: np.ndarray
    validation_logits: np.ndarray

    @classmethod
    def load(cls, folder: Path) -> Experiment:
        """Load the student of a folder."""
        run, (name,) = RunDir.open(folder)
        recipe = run.recipe
        config = next(student for student in recipe.student if student.key == name)
        task = load_task(recipe.data, recipe.task, name=recipe.name, seed=recipe.seed)
        source = run.students[name].student
        student = TextClassifier(load_student(source), load_tokenizer(source), config.max_length)
        test = student.encode(task.test.texts, task.test.pairs)
        validation = student.encode(task.validation.texts, task.validation.pairs)
        transfer = transfer_set_of(run, student.tokenizer)
        return cls(
            student,
            QatData(task, transfer, config.quantize, config.objective, recipe.seed),
            test,
            predict_logits(student.model, test, student.pad),
            predict_logits(student.model, validation, student.pad),
        )

    def cells(self, logits: np.ndarray) -> list[str]:
        """Compare logits (N, C) with those of the float student."""
        spec = self.data.task.spec
        value = score(spec, logits, self.data.task.test.labels)
        agreement = compare_logits(self.test_logits, logits, spec).agreement
        difference = float(np.square(logits - self.test_logits).mean() ** 0.5)
        return [f"{value:.4f}", f"{100 * agreement:.2f} %", f"{difference:.4f}"]

    def measure(self, variant: str) -> list[str]:
        """Calibrate, tune if the variant says so, and compare."""
        changes = VARIANTS[variant]
        quantize = self.data.recipe.model_copy(update=changes or {})
        data = replace(self.data, recipe=quantize)
        scheme = replace(INT8, weight_bits=8) if variant == EIGHT_BITS else INT8
        model, _ = calibrated(self.student, scheme, data)
        before = {key: value.clone() for key, value in model.state_dict().items()}
        if changes is not None:
            with tempfile.TemporaryDirectory() as folder:
                tune(
                    model,
                    self.student,
                    data,
                    Path(folder),
                    score=self._nearness,
                    progress=ConsoleProgress(),
                )
        logits = predict_logits(model, self.test, self.student.pad)
        moved = median_movement(before, model.state_dict())
        return [variant, *self.cells(logits), f"{100 * moved:.2f} %"]

    def _nearness(self, logits: np.ndarray) -> float:
        return -float(np.square(logits - self.validation_logits).mean())


def median_movement(before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor]) -> float:
    """Median over ranges of how far an end moved, as a share of the range's width."""
    moved = []
    for low in before:
        if not low.endswith(".range.low"):
            continue
        high = low.removesuffix("low") + "high"
        width = float(before[high] - before[low])
        farthest = max(abs(float(after[end] - before[end])) for end in (low, high))
        moved.append(farthest / width)
    return float(np.median(moved))


def lines(folder: Path, tuned: bool) -> Iterator[list[str]]:
    """Yield a row of the table for each variant of a student."""
    experiment = Experiment.load(folder)
    run = folder.parent.name
    yield [run, "float", *experiment.cells(experiment.test_logits), "–"]
    for variant, changes in VARIANTS.items():
        if tuned or changes is None:
            yield [run, *experiment.measure(variant)]


def study(targets: list[Path], tuned: bool) -> None:
    """Measure all students and print the table."""
    print(f"# What learned ranges add to QAT\n\nCommand: `python {' '.join(sys.argv)}`\n")
    print(f"| {' | '.join(HEADER)} |\n|---|---|--:|--:|--:|--:|")
    for target in targets:
        for cells in lines(target, tuned):
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    study(
        [Path(target) for target in sys.argv[1:] if not target.startswith("--")],
        "--untuned" not in sys.argv,
    )
