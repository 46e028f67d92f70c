"""What does each int8 variant retain and gain? Dynamic, calibrated, and fine-tuned with QAT.

    python benchmarks/studies/int8.py runs/trec-augmented runs/trec-augmented-seed1 ...

Each STUDENT is a run, or a student's folder in one. Every student is exported in all variants of
`VARIANTS`; its files are timed in one interleaved run on one thread. The same student from
several runs (seeds) is summarized: mean and standard deviation of the score that int8 loses.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from kdedge.benchmarks.studies._machine_line import machine_line
from kdedge.benchmarks.studies._speed_files import time_together, work_of

from kdedge.data import load_task
from kdedge.data.task import Split
from kdedge.evaluation.timing import Timings, representative, speedup_quartiles
from kdedge.run.layout import RunDir
from kdedge.runtime import Classifier
from kdedge.runtime.metrics import decide, score

FP32 = "fp32"
DYNAMIC = "int8, dynamic"
VARIANTS = {
    DYNAMIC: ("--precision", "all", "--scheme", "dynamic"),
    "int8, calibrated": ("--precision", "all", "--no-qat"),
    "int8, tuned": ("--precision", "all"),
}
"""File -> options of `kdedge export`; the bundle of the last one stays in the run."""

TEXTS = 200
SECONDS = 20.0
BATCH = 32


@dataclass(frozen=True)
class Line:
    """One file of one student.

    Attributes:
        drop: Score of the fp32 file minus the score of this file.
        same: Share of predictions that equal those of the fp32 file.
        batch_difference: Largest logit difference between single texts and batches.
        batch_changes: Predictions that differ between single texts and batches.
        torch: Largest logit difference and share of equal predictions between the fake-quantized
            student and the file; None if the file has no such student.
        speedup: Against the dynamic file: median and quartiles.
    """

    student: str
    run: str
    file: str
    metric: str
    value: float
    drop: float
    same: float
    batch_difference: float
    batch_changes: int
    torch: tuple[float, float] | None
    bytes: int
    p50: float
    speedup: tuple[float, float, float]

    def cells(self) -> list[str]:
        torch = "–"
        if self.torch:
            torch = f"{self.torch[0]:.1e}, {100 * self.torch[1]:.2f} %"
        return [
            self.run,
            self.file,
            f"{self.value:.4f}",
            f"{100 * self.same:.2f} %",
            f"{self.batch_difference:.1g}, {self.batch_changes}",
            torch,
            f"{self.bytes:,}",
            f"{1e6 * self.p50:,.0f}",
            "{:.2f}x [{:.2f}-{:.2f}]".format(*self.speedup),
        ]


HEADER = (
    "same predictions as fp32",
    f"alone against batches of {BATCH}: logits, predictions changed",
    "torch against file: logits, same",
    "bytes",
    "p50 µs",
    "speedup against dynamic",
)
SUMMARY_HEADER = (
    "file",
    "runs",
    "points lost against fp32",
    "lowest share of same predictions",
    "predictions changed in batches",
    "bytes",
)


def study(targets: list[Path]) -> None:
    """Export, measure, and print the tables."""
    lines: list[Line] = []
    for target in targets:
        lines += lines_of_target(target)
    command = f"python benchmarks/studies/int8.py {' '.join(map(str, targets))}"
    print(f"# int8 variants\n\nCommand: `{command}`; single texts on one thread.\n")
    print(machine_line())
    for student in dict.fromkeys(line.student for line in lines):
        print_student(student, [line for line in lines if line.student == student])


def print_student(student: str, lines: Sequence[Line]) -> None:
    """Print the table of one student and its summary over runs."""
    header = ["run", "file", lines[0].metric, *HEADER]
    print(f"## {student}\n\n| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for line in lines:
        print(f"| {' | '.join(line.cells())} |")
    print(f"\n| {' | '.join(SUMMARY_HEADER)} |\n|{'---|' * len(SUMMARY_HEADER)}")
    for file in dict.fromkeys(line.file for line in lines):
        print(f"| {' | '.join(summary([line for line in lines if line.file == file]))} |")
    print()


def summary(lines: Sequence[Line]) -> list[str]:
    """Summarize one file over its runs."""
    drops = [100 * line.drop for line in lines]
    lost = f"{statistics.mean(drops):.2f}"
    if len(drops) > 1:
        lost += f" ± {statistics.stdev(drops):.2f}"
    return [
        lines[0].file,
        str(len(lines)),
        lost,
        f"{100 * min(line.same for line in lines):.2f} %",
        str(sum(line.batch_changes for line in lines)),
        f"{lines[0].bytes:,}",
    ]


def lines_of_target(folder: Path) -> Iterator[Line]:
    """Yield all files of the students that a folder means."""
    run, students = RunDir.open(folder)
    recipe = run.recipe
    test = load_task(recipe.data, recipe.task, name=recipe.name, seed=recipe.seed).test
    with tempfile.TemporaryDirectory() as copies:
        classifiers = export_variants(run, folder, students, Path(copies))
        for student in students:
            yield from lines_of_student(student, run.folder.name, classifiers[student], test)


def export_variants(
    run: RunDir, folder: Path, students: Sequence[str], copies: Path
) -> dict[str, dict[str, Classifier]]:
    """Export every variant; return student -> file -> classifier."""
    classifiers: dict[str, dict[str, Classifier]] = {student: {} for student in students}
    for variant, options in VARIANTS.items():
        command = [sys.executable, "-m", "kdedge", "export", str(folder), *options]
        subprocess.run(command, check=True, stdout=sys.stderr)
        for student in students:
            bundle = run.students[student].bundle
            copy = shutil.copytree(bundle, copies / student / variant.replace(", ", "-"))
            files = classifiers[student]
            if FP32 not in files:
                files[FP32] = Classifier.load(copy, "fp32", threads=1)
            files[variant] = Classifier.load(copy, "int8", threads=1)
    return classifiers


def lines_of_student(
    student: str, run: str, classifiers: dict[str, Classifier], test: Split
) -> Iterator[Line]:
    """Measure all files of one student."""
    timed = time_all(classifiers, test)
    spec = classifiers[FP32].spec
    logits = {name: logits_in_batches(classifiers[name], test, 1) for name in classifiers}
    fp32_value = score(spec, logits[FP32], test.labels)
    fp32_predictions = decide(spec, logits[FP32])
    for name, classifier in classifiers.items():
        batched = logits_in_batches(classifier, test, BATCH)
        predictions = decide(spec, logits[name])
        value = score(spec, logits[name], test.labels)
        manifest = classifier.manifest
        yield Line(
            student=student,
            run=run,
            file=name,
            metric=spec.metric,
            value=value,
            drop=fp32_value - value,
            same=float(np.mean(predictions == fp32_predictions)),
            batch_difference=float(np.abs(logits[name] - batched).max()),
            batch_changes=int((predictions != decide(spec, batched)).sum()),
            torch=torch_parity(classifier),
            bytes=manifest.files[manifest.precisions[classifier.precision]]["bytes"],
            p50=timed[name].p50,
            speedup=speedup_quartiles(timed[DYNAMIC], timed[name]),
        )


def torch_parity(classifier: Classifier) -> tuple[float, float] | None:
    """Read the parity figures between the fake-quantized student and the int8 file."""
    figures = classifier.manifest.parity.get("int8", {})
    if classifier.precision != "int8" or "max_abs_logit_torch" not in figures:
        return None
    return figures["max_abs_logit_torch"], figures["same_answers_torch"]


def time_all(classifiers: dict[str, Classifier], test: Split) -> dict[str, Timings]:
    """Time all files of a student in one interleaved run, with tokenization."""
    chosen = representative(np.array([len(text) for text in test.texts]), TEXTS, seed=0)
    texts = test.take(chosen)
    items = texts.texts if texts.pairs is None else list(zip(texts.texts, texts.pairs, strict=True))
    works = {name: work_of(classifier.predict, items) for name, classifier in classifiers.items()}
    return time_together(works, len(items), SECONDS)


def logits_in_batches(classifier: Classifier, test: Split, size: int) -> np.ndarray:
    """Logits (N, C) in batches of consecutive texts, of any lengths."""
    logits = []
    for start in range(0, len(test), size):
        batch = slice(start, start + size)
        pairs = None if test.pairs is None else test.pairs[batch]
        logits.append(classifier.run(classifier.encode(test.texts[batch], pairs)))
    return np.concatenate(logits)


if __name__ == "__main__":
    study([Path(target) for target in sys.argv[1:]])
