"""What each way to int8 keeps and gains: the same student dynamic, with fixed ranges, and tuned to them.

    python benchmarks/studies/int8.py runs/sst2-tinybert > benchmarks/results/int8-sst2-tinybert.md

Exports the run three times and times all files in one interleaved run on one thread.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from kdedge.benchmarks.timing import Work, interleave, representative, spread

from kdedge.data import load_task
from kdedge.data.task import Split
from kdedge.rundir import Run
from kdedge.runtime import Classifier
from kdedge.runtime.metrics import decide, score

VARIANTS = {"int8, dynamic": ("--scheme", "dynamic"), "int8, calibrated": ("--no-qat",), "int8, tuned": ()}
TEXTS = 200
SECONDS = 60.0


def study(folder: Path) -> None:
    run, (student,) = Run.open(folder)
    recipe = run.recipe
    report = load_task(recipe.data, recipe.task, name=recipe.name, seed=recipe.seed).report
    with tempfile.TemporaryDirectory() as place:
        opened = {}
        for name, options in VARIANTS.items():
            subprocess.run([sys.executable, "-m", "kdedge", "export", str(folder), *options], check=True, stdout=sys.stderr)
            copy = shutil.copytree(run.homes[student] / "bundle", Path(place) / name.replace(", ", "-"))
            opened[name] = Classifier.load(copy, "int8", threads=1)
            opened.setdefault("fp32", Classifier.load(copy, "fp32", threads=1))
        print_table(folder, opened, report)


def print_table(folder: Path, opened: dict[str, Classifier], report: Split) -> None:
    timed = {name: parts[0] for name, parts in interleave({n: timing_of(c, report) for n, c in opened.items()}, TEXTS, seconds=SECONDS).items()}
    alone = {name: answers(classifier, report, 1) for name, classifier in opened.items()}
    spec = opened["fp32"].spec
    print(
        f"# Ways to int8: {folder.name}\n\nCommand: `python benchmarks/studies/int8.py {folder}`; {len(report)} texts, each alone; one thread; interleaved.\n"
    )
    print(
        f"| file | {spec.metric} | same answers as fp32 | alone against batches of 32: largest logit difference, labels changed | bytes | p50 µs | faster than dynamic |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, classifier in opened.items():
        logits, batched = alone[name], answers(classifier, report, 32)
        same = np.mean(decide(spec.kind, logits) == decide(spec.kind, alone["fp32"]))
        changed = int((decide(spec.kind, logits) != decide(spec.kind, batched)).sum())
        size = classifier.manifest.files[classifier.manifest.precisions[classifier.precision]]["bytes"]
        ratio, low, high = spread(timed["int8, dynamic"], timed[name])
        print(
            f"| {name} | {score(spec.metric, spec.kind, logits, report.labels):.4f} | {100 * same:.2f} % | {np.abs(logits - batched).max():.2g}, {changed} "
            f"| {size:,} | {1e6 * timed[name].p50:,.0f} | {ratio:.2f}x [{low:.2f}-{high:.2f}] |"
        )


def timing_of(classifier: Classifier, report: Split) -> Work:
    """Seconds of one text, tokenization included."""
    chosen = representative(np.array([len(text) for text in report.texts]), TEXTS, seed=0)

    def work(item: int) -> tuple[float, ...]:
        i = chosen[item]
        start = time.perf_counter()
        classifier.predict(report.texts[i], None if report.pairs is None else report.pairs[i])
        return (time.perf_counter() - start,)

    return work


def answers(classifier: Classifier, report: Split, batch: int) -> np.ndarray:
    """Logits (N, C) in batches of consecutive texts, whatever their lengths."""
    rows = []
    for start in range(0, len(report), batch):
        pairs = None if report.pairs is None else report.pairs[start : start + batch]
        rows.append(classifier.run(classifier.encode(report.texts[start : start + batch], pairs)))
    return np.concatenate(rows)


if __name__ == "__main__":
    study(Path(sys.argv[1]))
