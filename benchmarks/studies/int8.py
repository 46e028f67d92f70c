"""What each way to int8 keeps and gains: students dynamic, with fixed ranges, and tuned to them.

    python benchmarks/studies/int8.py runs/trec-augmented runs/trec-augmented-seed1 ... > benchmarks/results/int8-trec.md

Each TARGET is a run, or a student's folder in one. Every student is exported in all ways of `VARIANTS`; its files are timed in one interleaved
run on one thread. The same student from several runs (seeds) is summed up: mean and standard deviation of what int8 loses.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from kdedge.benchmarks import machine

from kdedge.data import load_task
from kdedge.data.task import Split
from kdedge.evaluation.timing import TimingPlan, Work, interleave, representative, speedup_quartiles
from kdedge.recipe import Recipe, TinyBertConfig
from kdedge.run.layout import RunDir
from kdedge.runtime import Classifier
from kdedge.runtime.metrics import decide, score

DYNAMIC = "int8, dynamic"
ATTENTION = "int8, tuned, attention too"
VARIANTS = {
    DYNAMIC: ("--scheme", "dynamic"),
    "int8, calibrated": ("--no-qat",),
    ATTENTION: ("--attention", "integers"),
    "int8, tuned": (),
}
"""File -> options of `kdedge export`; the last one is what stays. With attention in integers: of students that have attention."""

TEXTS = 200
SECONDS = 20.0


@dataclass(frozen=True)
class Line:
    """One file of one student. drop: of the metric against its fp32 file; apart: largest logit difference and answers changed in batches.

    torch: largest logit difference and share of equal answers between the fake-quantized student and the file; None of a file without one.
    """

    student: str
    run: str
    file: str
    metric: str
    value: float
    drop: float
    same: float
    apart: tuple[float, int]
    torch: tuple[float, float] | None
    bytes: int
    p50: float
    faster: tuple[float, float, float]

    def cells(self) -> list[str]:
        torch = f"{self.torch[0]:.1e}, {100 * self.torch[1]:.2f} %" if self.torch else "–"
        ratio = "{:.2f}x [{:.2f}-{:.2f}]".format(*self.faster)
        apart = f"{self.apart[0]:.1g}, {self.apart[1]}"
        return [
            self.run,
            self.file,
            f"{self.value:.4f}",
            f"{100 * self.same:.2f} %",
            apart,
            torch,
            f"{self.bytes:,}",
            f"{1e6 * self.p50:,.0f}",
            ratio,
        ]


HEADER = (
    "same answers as fp32",
    "alone against batches of 32: logits, answers changed",
    "torch against file: logits, same",
    "bytes",
    "p50 µs",
    "faster than dynamic",
)


def study(targets: list[Path]) -> None:
    lines = [line for target in targets for line in of_target(target)]
    print(
        f"# Ways to int8\n\nCommand: `python benchmarks/studies/int8.py {' '.join(map(str, targets))}`; single texts on one thread.\n\n{machine.line()}"
    )
    for student in dict.fromkeys(line.student for line in lines):
        mine = [line for line in lines if line.student == student]
        print(
            f"## {student}\n\n| {' | '.join(['run', 'file', mine[0].metric, *HEADER])} |\n|{'---|' * (len(HEADER) + 3)}"
        )
        print("\n".join("| " + " | ".join(line.cells()) + " |" for line in mine))
        print(
            "\n| file | runs | points lost against fp32 | least same answers | answers changed in batches | bytes |\n|---|---|---|---|---|---|"
        )
        for file in dict.fromkeys(line.file for line in mine):
            some = [line for line in mine if line.file == file]
            drops = [100 * line.drop for line in some]
            told = f"{statistics.mean(drops):.2f}" + (
                f" ± {statistics.stdev(drops):.2f}" if len(drops) > 1 else ""
            )
            changed, least = sum(line.apart[1] for line in some), min(line.same for line in some)
            print(
                f"| {file} | {len(some)} | {told} | {100 * least:.2f} % | {changed} | {some[0].bytes:,} |"
            )
        print()


def of_target(folder: Path) -> Iterator[Line]:
    """All files of the students that a folder means."""
    run, students = RunDir.open(folder)
    attends = {
        Recipe.student_name(student)
        for student in run.recipe.student
        if isinstance(student, TinyBertConfig)
    }
    test = load_task(
        run.recipe.data, run.recipe.task, name=run.recipe.name, seed=run.recipe.seed
    ).test
    with tempfile.TemporaryDirectory() as place:
        opened: dict[str, dict[str, Classifier]] = {student: {} for student in students}
        for name, options in VARIANTS.items():
            made = [student for student in students if student in attends or name != ATTENTION]
            if not made:
                continue
            subprocess.run(
                [sys.executable, "-m", "kdedge", "export", str(folder), *options],
                check=True,
                stdout=sys.stderr,
            )
            for student in made:
                copy = shutil.copytree(
                    run.student_dirs[student] / "bundle",
                    Path(place) / student / name.replace(", ", "-"),
                )
                opened[student].setdefault("fp32", Classifier.load(copy, "fp32", threads=1))
                opened[student][name] = Classifier.load(copy, "int8", threads=1)
        for student in students:
            yield from lines_of(student, run.folder.name, opened[student], test)


def lines_of(student: str, run: str, opened: dict[str, Classifier], test: Split) -> Iterator[Line]:
    timed = {
        name: parts[0]
        for name, parts in interleave(
            {n: timing_of(c, test) for n, c in opened.items()}, TEXTS, TimingPlan(SECONDS)
        ).items()
    }
    alone = {name: answers(classifier, test, 1) for name, classifier in opened.items()}
    spec = opened["fp32"].spec
    values = {
        name: score(spec.metric, spec.kind, logits, test.labels) for name, logits in alone.items()
    }
    for name, classifier in opened.items():
        logits, batched = alone[name], answers(classifier, test, 32)
        figures = classifier.manifest.parity["int8"] if name != "fp32" else {}
        torch = (
            (figures["max_abs_logit_torch"], figures["same_answers_torch"])
            if "max_abs_logit_torch" in figures
            else None
        )
        yield Line(
            student,
            run,
            name,
            spec.metric,
            values[name],
            values["fp32"] - values[name],
            float(np.mean(decide(spec.kind, logits) == decide(spec.kind, alone["fp32"]))),
            (
                float(np.abs(logits - batched).max()),
                int((decide(spec.kind, logits) != decide(spec.kind, batched)).sum()),
            ),
            torch,
            classifier.manifest.files[classifier.manifest.precisions[classifier.precision]][
                "bytes"
            ],
            timed[name].p50,
            speedup_quartiles(timed[DYNAMIC], timed[name]),
        )


def timing_of(classifier: Classifier, test: Split) -> Work:
    """Seconds of one text, tokenization included."""
    chosen = representative(np.array([len(text) for text in test.texts]), TEXTS, seed=0)

    def work(item: int) -> tuple[float, ...]:
        i = chosen[item]
        start = time.perf_counter()
        classifier.predict(test.texts[i], None if test.pairs is None else test.pairs[i])
        return (time.perf_counter() - start,)

    return work


def answers(classifier: Classifier, test: Split, batch: int) -> np.ndarray:
    """Logits (N, C) in batches of consecutive texts, whatever their lengths."""
    rows = []
    for start in range(0, len(test), batch):
        pairs = None if test.pairs is None else test.pairs[start : start + batch]
        rows.append(classifier.run(classifier.encode(test.texts[start : start + batch], pairs)))
    return np.concatenate(rows)


if __name__ == "__main__":
    study([Path(target) for target in sys.argv[1:]])
