"""What each way to a file keeps and costs: the student in fp32, calibrated to int8, and tuned to it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from kdedge.export.card import FLOAT, times
from kdedge.export.int8_writer import to_int8
from kdedge.export.pack import ExportInput, file_score
from kdedge.export.parity import compare_logits, spread_over

from kdedge.data.task import Split, Task
from kdedge.runtime import Bundle, Classifier
from kdedge.runtime.bundle import PRECISIONS

TIMED_TEXTS = 32
ROUNDS = 9
SECONDS = 3.0
"""Timing stops after the round in which these are over."""


@dataclass(frozen=True)
class Variant:
    """One file: its metric on the test split, the share of its answers that are the float file's, its bytes, and
    the median time of one text alone on one thread, tokenization included, in µs. faster: median and quartiles of how many times
    less the same text took than with the float file, right before or after it.
    """

    metric: float
    agreement: float
    bytes: int
    p50_us: float
    faster: tuple[float, float, float]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class VariantDecision:
    """All ways to a student, the name of the int8 one that is to be packed, and what speaks against it.

    lost: why the bundle is better off without it; slow: why it only saves bytes.
    """

    ways: Mapping[str, Variant]
    int8: str | None = None
    loss_reason: str | None = None
    slow: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "files": {name: way.to_json() for name, way in self.ways.items()},
            "int8": self.int8,
            "lost": self.loss_reason,
            "slow": self.slow,
        }


def evaluate_variants(opened: Bundle, made: ExportInput, task: Task) -> VariantDecision:
    """Measure the files of an opened bundle, and what it would be without tuning, against each other."""
    graphs = {FLOAT: opened.contents[PRECISIONS["fp32"]]}
    if made.calibrated is not None and made.tuning["weights"] == "tuned":
        graphs["calibrated"] = to_int8(made.calibrated).SerializeToString()
    graphs |= {
        name: opened.contents[PRECISIONS[name]]
        for name in ("fp16", "portable")
        if name in made.graphs
    }
    int8 = None
    if "int8" in made.graphs:
        int8 = made.tuning["weights"] if made.quantized is not None else _name_of(made.scheme or {})
        graphs[int8] = opened.contents[PRECISIONS["int8"]]
    classifiers = {name: _open(opened, graph) for name, graph in graphs.items()}
    ways = measure_variants(
        classifiers, {name: len(graph) for name, graph in graphs.items()}, task.test
    )
    if int8 is None:
        return VariantDecision(ways)
    # What a smaller vocabulary has cost counts too: both stand between the student that was trained and the file.
    trained = made.parity.get("vocabulary", {}).get("validation", {}).get("before")
    before = file_score(classifiers[FLOAT], task.validation)[0] if trained is None else trained
    after = file_score(classifiers[int8], task.validation)[0]
    why = accuracy_loss_reason(
        before, after, len(task.validation), made.largest_drop or 0.0
    ) or size_reason(ways, int8)
    return VariantDecision(ways, int8, why, latency_reason(ways, int8))


def _name_of(scheme: Mapping[str, Any]) -> str:
    return "weight_only" if scheme.get("activations") == "float" else "dynamic"


def _open(bundle: Bundle, graph: bytes) -> Classifier:
    """One thread of a graph that reads what the bundle's fp32 file reads."""
    return Classifier.from_bundle(
        replace(bundle, contents={**bundle.contents, PRECISIONS["fp32"]: graph}), "fp32", threads=1
    )


def measure_variants(
    classifiers: Mapping[str, Classifier], sizes: Mapping[str, int], split: Split
) -> dict[str, Variant]:
    """Every way to the same student, one of them `FLOAT`, each measured itself on a split and timed in turn with the others.

    classifiers: of one thread. sizes: bytes of their files.
    """
    scored = {name: file_score(classifier, split) for name, classifier in classifiers.items()}
    kind = classifiers[FLOAT].spec.kind
    seconds = time_in_turn(classifiers, split)
    ways = {}
    for name, (metric, logits) in scored.items():
        low, middle, high = np.quantile(
            np.array(seconds[FLOAT]) / np.array(seconds[name]), [0.25, 0.5, 0.75]
        ).tolist()
        same = compare_logits(scored[FLOAT][1], logits, kind).agreement
        ways[name] = Variant(
            metric, same, sizes[name], 1e6 * float(np.median(seconds[name])), (middle, low, high)
        )
    return ways


def time_in_turn(classifiers: Mapping[str, Classifier], split: Split) -> dict[str, list[float]]:
    """Seconds of single texts from the shortest to the longest; all files answer a text before any reads the next."""
    chosen = spread_over(np.array([len(text) for text in split.texts]), TIMED_TEXTS)
    random, names = np.random.default_rng(0), list(classifiers)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    begun = time.perf_counter()
    for _ in range(ROUNDS):
        for i in chosen:
            texts, pairs = [split.texts[i]], None if split.pairs is None else [split.pairs[i]]
            for name in random.permutation(names).tolist():
                start = time.perf_counter()
                classifiers[name].logits(texts, pairs)
                seconds[name].append(time.perf_counter() - start)
        if time.perf_counter() - begun > SECONDS:
            break
    return seconds


def accuracy_loss_reason(
    before: float, after: float, texts: int, largest_drop: float
) -> str | None:
    """Why a file that scores `after` on `texts` examples is too much worse than one that scores `before`; None where it is not.

    A single text may always change: a drop of less than that cannot be measured.
    """
    if before - after <= max(largest_drop, 1 / texts) + 1e-9:
        return None
    return f"it loses {before - after:.4f} on the validation split, {largest_drop:g} is allowed"


def size_reason(ways: Mapping[str, Variant], way: str) -> str | None:
    """Why a file does not pay in bytes; None where it is smaller than the float file."""
    mine, theirs = ways[way].bytes, ways[FLOAT].bytes
    return (
        None
        if mine < theirs
        else f"it is no smaller: {mine:,} bytes against {theirs:,}, since too many of its layers are in fp32"
    )


def latency_reason(ways: Mapping[str, Variant], way: str) -> str | None:
    """Why a file does not pay in time; None where it is faster than the float file."""
    mine, theirs = ways[way], ways[FLOAT]
    return (
        None
        if mine.faster[0] > 1
        else f"it is not faster: {mine.p50_us:,.0f} µs against {theirs.p50_us:,.0f}, {times(mine.faster)}"
    )
