"""How fast are a run's bundles on a GPU, and how fast on the CPU of the same machine?

    python benchmarks/studies/providers.py runs/gpu-bundles --provider cuda --threads 16

Every file classifies single texts, and lists of 256 in batches of 32, in rounds in which all files
take turns. The table shows the microseconds of one text: the median and the quartiles. Tokenization
is included; one core does it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path

import click
import numpy as np
from kdedge.benchmarks.studies._variant_tables import markdown_row

from kdedge.cli.main import main
from kdedge.data import load_task
from kdedge.errors import UsageError
from kdedge.run.layout import RunDir
from kdedge.runtime import Classifier
from kdedge.runtime.bundle_source import open_bundle

SINGLE = 20
"""Single texts of a round."""

LIST = 256
"""Texts of the one list of a round."""

HEADER = ["student", "file", "provider", "threads", "one text, µs", f"one of {LIST} texts, µs"]


def load_files(run: RunDir, provider: str, threads: int) -> Iterator[tuple[list[str], Classifier]]:
    """Yield the leading cells and the classifier of each file that is timed.

    fp32 and fp16 run on the provider, int8 on one CPU thread and on all, and fp32 on all. A file
    that a bundle does not have is left out.
    """
    settings = [
        ("fp32", provider, 1),
        ("fp16", provider, 1),
        ("int8", "cpu", 1),
        ("int8", "cpu", threads),
        ("fp32", "cpu", threads),
    ]
    for name, student in run.students.items():
        available = open_bundle(student.bundle).manifest.precisions
        for precision, where, count in settings:
            if precision in available:
                cells = [name, precision, where, str(count)]
                yield cells, Classifier.load(student.bundle, precision, where, count)


def time_files(
    classifiers: Sequence[Classifier], texts: Sequence[str], rounds: int
) -> list[tuple[list[float], list[float]]]:
    """Return the seconds of single texts, and of one text of a list, for each classifier."""
    supply = cycle(texts)
    seconds: list[tuple[list[float], list[float]]] = [([], []) for _ in classifiers]
    for number in range(rounds + 1):
        single = list(islice(supply, SINGLE))
        many = list(islice(supply, LIST))
        for classifier, (alone, together) in zip(classifiers, seconds, strict=True):
            of_singles = [timed(classifier, [text]) for text in single]
            of_list = timed(classifier, many) / LIST
            if number > 0:  # the first round warms up
                alone.extend(of_singles)
                together.append(of_list)
    return seconds


def timed(classifier: Classifier, texts: list[str]) -> float:
    start = time.perf_counter()
    classifier.logits(texts)
    return time.perf_counter() - start


def cell(seconds: Sequence[float]) -> str:
    low, middle, high = 1e6 * np.percentile(seconds, (25, 50, 75))
    return f"{middle:,.0f} [{low:,.0f}–{high:,.0f}]"


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--provider", default="cuda", show_default=True)
@click.option(
    "--threads", type=click.IntRange(2), default=os.cpu_count(), help="Default: all cores."
)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
def study(run: Path, provider: str, threads: int, rounds: int) -> None:
    """Print the table of the bundles in RUN."""
    opened = RunDir.open(run)[0]
    recipe = opened.recipe
    task = load_task(recipe.data, recipe.task, name=recipe.name, seed=recipe.seed)
    if task.test.pairs is not None:
        raise UsageError("this study times single texts", recipe.name, "name a run of single texts")
    files = list(load_files(opened, provider, threads))
    timings = time_files([classifier for _, classifier in files], task.test.texts, rounds)
    print(markdown_row(HEADER), markdown_row(["---"] * len(HEADER)), sep="\n")
    for (cells, _), (alone, together) in zip(files, timings, strict=True):
        print(markdown_row([*cells, cell(alone), cell(together)]))


if __name__ == "__main__":
    main(study)
