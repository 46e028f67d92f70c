"""How many texts can a student answer alone, and does the promised agreement hold?

    kdedge distill benchmarks/studies/recipes/cascade-clinc150.toml --seeds 5
    kdedge export runs/cascade-clinc150   # and each runs/cascade-clinc150-seed*
    python benchmarks/studies/cascade.py cascade-clinc150 --unusual ../shared/data/clinc150

For every seed the threshold is chosen on the validation texts, by the agreement table of the
bundle, and measured on the test texts. `--unusual` names a folder with texts of no label
(oos_validation.parquet): the page says how many of them the student answers alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from kdedge.benchmarks.studies._seed_runs import runs_of

from kdedge.data import load_task
from kdedge.data.task import Task
from kdedge.errors import CheckFailed
from kdedge.nn.text_model import read_measured
from kdedge.runtime import Classifier
from kdedge.runtime.agreement import Threshold, confidence, same_label, usualness

PROMISES = (0.99, 0.95)


@dataclass(frozen=True)
class Measured:
    """One student of one seed at one promise.

    Attributes:
        share: Share of the test texts that the student answers alone.
        agreement: Agreement with the teacher on these.
        unusual: Share of the unusual texts that it answers alone, with and without the check for
            unusual texts.
    """

    share: float
    agreement: float
    unusual: tuple[float, float] | None


def measure(
    classifier: Classifier, task: Task, teacher: np.ndarray, promise: float, unusual: Sequence[str]
) -> Measured:
    """Choose a threshold on the validation texts, and measure it on the test texts."""
    threshold = classifier.agreement_table().threshold(promise)
    logits = classifier.logits(task.test.texts, task.test.pairs)
    alone = answers_alone(classifier, logits, threshold)
    agrees = same_label(classifier.spec, logits, teacher)
    strange = None
    if unusual:
        unusual_logits = classifier.logits(unusual)
        checked = answers_alone(classifier, unusual_logits, threshold)
        sure = confidence(classifier.spec, unusual_logits, classifier.temperature)
        strange = (float(checked.mean()), float((sure >= threshold.confidence).mean()))
    return Measured(float(alone.mean()), float(agrees[alone].mean()), strange)


def answers_alone(classifier: Classifier, logits: np.ndarray, threshold: Threshold) -> np.ndarray:
    """Return for each text whether the student answers it: (N,) bool."""
    sure = confidence(classifier.spec, logits, classifier.temperature)
    return np.asarray((sure >= threshold.confidence) & (usualness(logits) >= threshold.usualness))


def median_microseconds(classifier: Classifier, texts: Sequence[str]) -> float:
    times = []
    for text in [*texts[:100], *texts[:1000]]:
        start = time.perf_counter()
        classifier.predict(text)
        times.append(time.perf_counter() - start)
    return 1e6 * float(np.median(times[100:]))


def summary(values: Sequence[float]) -> str:
    return f"{100 * np.mean(values):.1f} ± {100 * np.std(values, ddof=1):.1f} %"


def row(name: str, promise: float, results: Sequence[Measured], microseconds: float) -> str:
    """Write the row of one student and promise over its seeds."""
    agreements = [result.agreement for result in results]
    kept = sum(agreement >= promise for agreement in agreements)
    unusual = "–"
    shares = [result.unusual for result in results if result.unusual is not None]
    if shares:
        checked, unchecked = np.mean(shares, axis=0)
        unusual = f"{100 * checked:.1f} % ({100 * unchecked:.1f} % without the check)"
    return (
        f"| {name} | {100 * promise:g} % | {summary([result.share for result in results])} "
        f"| {summary(agreements)}; lowest {100 * min(agreements):.2f} % "
        f"| {kept} of {len(results)} | {unusual} | {microseconds:.0f} |"
    )


def study() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help="name of the run of the first seed")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--unusual", type=Path)
    arguments = parser.parse_args()
    unusual: list[str] = []
    if arguments.unusual:
        table = pq.read_table(arguments.unusual / "oos_validation.parquet")
        unusual = table.column("text").to_pylist()
    runs = runs_of(arguments.name, arguments.runs)
    recipe = runs[0].recipe
    task = load_task(recipe.data, recipe.task, name=recipe.name, seed=recipe.seed)
    _, teacher = read_measured(runs[0].teacher, task)
    print("| student | promised | answers alone | agreement | kept | unusual texts | µs a text |")
    print("| --- | --- | --- | --- | --- | --- | --: |")
    for name in runs[0].students:
        classifiers = [Classifier.load(run.students[name].bundle, threads=1) for run in runs]
        microseconds = median_microseconds(classifiers[0], task.test.texts)
        for promise in PROMISES:
            try:
                results = [
                    measure(classifier, task, teacher, promise, unusual)
                    for classifier in classifiers
                ]
            except CheckFailed as error:
                print(f"| {name} | {100 * promise:g} % | {error.message} | – | – | – | – |")
                continue
            print(row(name, promise, results, microseconds))


if __name__ == "__main__":
    study()
