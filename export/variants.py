"""Compares the variants of a student's file: fp32, calibrated, tuned, dynamic, fp16, portable."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from kdedge.export.figures import FLOAT, Variant, VariantDecision, times
from kdedge.export.int8_writer import to_int8
from kdedge.export.pack import ExportedFiles, ExportInput, file_score
from kdedge.export.parity import compare_logits, spread_over

from kdedge.data.task import Split, Task
from kdedge.evaluation.timing import TimingPlan, Timings, Work, interleave, speedup_quartiles
from kdedge.runtime import Bundle, Classifier
from kdedge.runtime.layout import PRECISIONS

TIMED_TEXTS = 32
MOST_ROUNDS = 9
SECONDS = 3.0


def evaluate_variants(
    opened: Bundle, source: ExportInput, files: ExportedFiles, task: Task
) -> VariantDecision:
    """Measure the files of an opened bundle, and decide whether the int8 file is worth packing.

    If the int8 file is tuned, the file without tuning is measured too.
    """
    graphs = _variant_graphs(opened, files)
    classifiers = {name: _open(opened, graph) for name, graph in graphs.items()}
    sizes = {name: len(graph) for name, graph in graphs.items()}
    variants = measure_variants(classifiers, sizes, task.test)
    int8 = files.int8_variant
    if int8 is None:
        return VariantDecision(variants)
    # The cost of a smaller vocabulary counts too: the comparison is with the trained student.
    if source.vocabulary is not None:
        before = source.vocabulary.validation.before
    else:
        before, _ = file_score(classifiers[FLOAT], task.validation)
    after, _ = file_score(classifiers[int8], task.validation)
    loss_reason = accuracy_loss_reason(
        before, after, len(task.validation), source.largest_drop or 0.0
    ) or size_reason(variants, int8)
    return VariantDecision(variants, int8, loss_reason, latency_reason(variants, int8))


def _variant_graphs(opened: Bundle, files: ExportedFiles) -> dict[str, bytes]:
    graphs = {FLOAT: opened.contents[PRECISIONS["fp32"]]}
    if files.quantized is not None and files.int8_variant == "tuned":
        graphs["calibrated"] = to_int8(files.quantized.calibrated).SerializeToString()
    for name in ("fp16", "portable"):
        if name in files.graphs:
            graphs[name] = opened.contents[PRECISIONS[name]]
    if files.int8_variant is not None:
        graphs[files.int8_variant] = opened.contents[PRECISIONS["int8"]]
    return graphs


def _open(bundle: Bundle, graph: bytes) -> Classifier:
    """Return a classifier of one thread with a graph in place of the bundle's fp32 file."""
    contents = {**bundle.contents, PRECISIONS["fp32"]: graph}
    return Classifier.from_bundle(replace(bundle, contents=contents), "fp32", threads=1)


def measure_variants(
    classifiers: Mapping[str, Classifier], sizes: Mapping[str, int], split: Split
) -> dict[str, Variant]:
    """Score every variant on a split and time it in turn with the others.

    The classifiers have one thread each, and one is `FLOAT`; `sizes` are bytes.
    """
    scored = {name: file_score(classifier, split) for name, classifier in classifiers.items()}
    spec = classifiers[FLOAT].spec
    timings = time_in_turn(classifiers, split)
    _, float_logits = scored[FLOAT]
    variants = {}
    for name, (metric, logits) in scored.items():
        variants[name] = Variant(
            metric,
            compare_logits(float_logits, logits, spec).agreement,
            sizes[name],
            1e6 * timings[name].p50,
            speedup_quartiles(timings[FLOAT], timings[name]),
        )
    return variants


def time_in_turn(classifiers: Mapping[str, Classifier], split: Split) -> dict[str, Timings]:
    """Time single texts from the shortest to the longest.

    All files read a text before any reads the next, so each text is one round of the timing.
    """
    chosen = spread_over(np.array([len(text) for text in split.texts]), TIMED_TEXTS)
    works = {name: _work(classifier, split, chosen) for name, classifier in classifiers.items()}
    timings = interleave(
        works,
        len(chosen),
        TimingPlan(
            seconds=SECONDS,
            visit=1,
            lead_in=False,
            at_least=len(chosen),
            at_most=MOST_ROUNDS * len(chosen),
        ),
    )
    return {name: parts[0] for name, parts in timings.items()}


def _work(classifier: Classifier, split: Split, chosen: list[int]) -> Work:
    """Return a function that reads one of the chosen texts and returns the seconds it took."""

    def work(item: int) -> tuple[float]:
        i = chosen[item]
        pairs = None if split.pairs is None else [split.pairs[i]]
        start = time.perf_counter()
        classifier.logits([split.texts[i]], pairs)
        return (time.perf_counter() - start,)

    return work


def accuracy_loss_reason(
    before: float, after: float, texts: int, largest_drop: float
) -> str | None:
    """Return why a score of `after` is too low compared with `before`; None if it is not.

    A drop of less than one text cannot be measured, so it is always allowed.
    """
    drop = before - after
    if drop <= max(largest_drop, 1 / texts) + 1e-9:
        return None
    return f"it loses {drop:.4f} on the validation split, {largest_drop:g} is allowed"


def size_reason(variants: Mapping[str, Variant], name: str) -> str | None:
    """Return why a file saves no bytes; None if it is smaller than the float file."""
    size, float_size = variants[name].bytes, variants[FLOAT].bytes
    if size < float_size:
        return None
    return f"it is no smaller: {size:,} bytes compared with {float_size:,}"


def latency_reason(variants: Mapping[str, Variant], name: str) -> str | None:
    """Return why a file saves no time; None if it is faster than the float file."""
    variant, reference = variants[name], variants[FLOAT]
    if variant.speedup[0] > 1:
        return None
    return (
        f"it is not faster: {variant.p50_us:,.0f} µs compared with {reference.p50_us:,.0f}, "
        f"{times(variant.speedup)}"
    )
