"""What an eighth bit of the weights adds to calibration, and learned ranges to tuning: with fixed ranges, and with ones that learn at several rates.

    python export/studies/ranges.py [--untuned] runs/trec-vocabulary/eleven-thousand runs/trec-vocabulary-seed1/eleven-thousand ...

Torch computes in the integers of the int8 file. Each TARGET is a student's folder in a run. Every student is tuned, whether or not `kdedge export` would call for it; the moment is taken at which
its logits on the validation split are nearest to those of the float student. What is told is of the test split.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from kdedge.export.options import INT8
from kdedge.export.parity import compare_logits
from kdedge.export.qat import QatData, calibrated, tune

from kdedge.cli.console import ConsoleProgress
from kdedge.data import load_task
from kdedge.nn.inference import predict_logits
from kdedge.nn.text_model import TextClassifier
from kdedge.nn.tokenization import load_tokenizer
from kdedge.recipe import Recipe
from kdedge.run.layout import RunDir
from kdedge.runtime.metrics import score
from kdedge.students.build import load_student
from kdedge.transfer.dataset import read_transfer_set

EIGHT = "calibrated, weights of 8 bits"
VARIANTS = {
    "calibrated": None,
    EIGHT: None,
    "weights alone": {"learn_ranges": False},
    "and ranges at 0.0005": {"range_learning_rate": 5e-4},
    "and ranges at 0.002": {"range_learning_rate": 2e-3},
    "and ranges at 0.008": {"range_learning_rate": 8e-3},
}
"""What is tuned -> what is changed in the recipe's [student.quantize]; None: not tuned."""


def lines(folder: Path, tuned: bool) -> Iterator[list[str]]:
    """A row of the table for each variant of a student."""
    run, (name,) = RunDir.open(folder)
    recipe = next(student for student in run.recipe.student if Recipe.student_name(student) == name)
    task = load_task(run.recipe.data, run.recipe.task, name=run.recipe.name, seed=run.recipe.seed)
    source = run.student_dirs[name] / "student"
    student = TextClassifier(load_student(source), load_tokenizer(source), recipe.max_length)
    validation, test = (
        student.encode(split.texts, split.pairs) for split in (task.validation, task.test)
    )
    wanted, nearest = (
        predict_logits(student.model, texts, student.pad) for texts in (test, validation)
    )
    context = QatData(
        task, read_transfer_set(run.transfer), recipe.quantize, recipe.objective, run.recipe.seed
    )
    spec, labels = task.spec, task.test.labels
    yield [
        folder.parent.name,
        "float",
        f"{score(spec.metric, spec.kind, wanted, labels):.4f}",
        "100.00 %",
        "0",
        "–",
    ]
    for title, changed in VARIANTS.items():
        if changed is not None and not tuned:
            continue
        tried = replace(context, recipe=recipe.quantize.model_copy(update=changed or {}))
        model, _ = calibrated(
            student, replace(INT8, weight_bits=8) if title == EIGHT else INT8, tried
        )
        before = {key: value.clone() for key, value in model.state_dict().items()}
        if changed is not None:
            with tempfile.TemporaryDirectory() as place:
                tune(
                    model,
                    student,
                    tried,
                    Path(place),
                    score=lambda logits: -float(np.square(logits - nearest).mean()),
                    progress=ConsoleProgress(),
                )
        logits = predict_logits(model, test, student.pad)
        moved = [
            _moved(key, before, model.state_dict()) for key in before if key.endswith(".range.low")
        ]
        same = compare_logits(wanted, logits, spec.kind).agreement
        apart = float(np.square(logits - wanted).mean() ** 0.5)
        told = [
            f"{score(spec.metric, spec.kind, logits, labels):.4f}",
            f"{100 * same:.2f} %",
            f"{apart:.4f}",
            f"{100 * float(np.median(moved)):.2f} %",
        ]
        yield [folder.parent.name, title, *told]


def _moved(low: str, before: dict, after: dict) -> float:
    """How far the ends of a range went, as a share of its width; the farther of the two."""
    high = low.removesuffix("low") + "high"
    width = float(before[high] - before[low])
    return max(abs(float(after[end] - before[end])) for end in (low, high)) / width


def study(targets: list[Path], tuned: bool) -> None:
    print(f"# What learned ranges add to tuning\n\nCommand: `python {' '.join(sys.argv)}`\n")
    print(
        "| run | tuned | score | same answers as float | logits apart from float, rms | ends moved, median |\n|---|---|--:|--:|--:|--:|"
    )
    for target in targets:
        for cells in lines(target, tuned):
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    study(
        [Path(target) for target in sys.argv[1:] if not target.startswith("--")],
        "--untuned" not in sys.argv,
    )
