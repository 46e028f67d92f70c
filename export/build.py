"""Builds a checked bundle from a classifier: graphs, checks, figures, files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from kdedge.export.dynamic_int8 import quantize
from kdedge.export.figures import Int8Figures, ParityFigures, VariantDecision
from kdedge.export.graph import to_onnx
from kdedge.export.half import FP16, to_half, without_useless_half
from kdedge.export.int8_parity import check_integers
from kdedge.export.int8_writer import to_int8
from kdedge.export.options import AUTO, ExportOptions
from kdedge.export.pack import (
    ExportedFiles,
    ExportInput,
    begin_bundle,
    file_score,
    finish_bundle,
    golden_rows,
    manifest_of,
)
from kdedge.export.parity import (
    GROUP,
    PADDED,
    Encoded,
    check_batch_independence,
    check_parity,
    check_same_predictions,
    compare_logits,
    measure_batch_dependence,
    parity_batches,
    spread_over,
)
from kdedge.export.portable import to_portable
from kdedge.export.qat import QuantizedStudent
from kdedge.export.registry import export_of
from kdedge.export.validation_fit import NOT_FITTED, fit_on_validation
from kdedge.export.variants import evaluate_variants
from transformers import PreTrainedModel

from kdedge.data.task import Split, Task
from kdedge.errors import CheckFailed, MachineError
from kdedge.io.atomic import removed_on_error
from kdedge.io.disk import named_disk_errors
from kdedge.run.progress import SILENT, Progress
from kdedge.runtime import Bundle, Classifier
from kdedge.runtime.layout import PRECISIONS
from kdedge.runtime.session import CPU_ORDER

COMPARED_TEXTS = 128
"""Texts on which every activation of the int8 file is compared with torch."""


def build_bundle(
    source: ExportInput,
    task: Task,
    folder: Path,
    options: ExportOptions,
    *,
    quantized: QuantizedStudent | None = None,
    progress: Progress = SILENT,
) -> None:
    """Write the files of a classifier, check them, and replace the bundle in `folder`.

    Without a `quantized` student the int8 file is dynamic.

    Raises:
        CheckFailed: If a file does not do what its model does. The old bundle is unchanged.
        MachineError: If the bundle cannot be written.
    """
    options = without_useless_half(source.model, source.name, options, progress)
    files = write_files(source.model, options, quantized)
    part = folder.with_name(folder.name + ".part")
    try:
        with named_disk_errors(folder), removed_on_error(part):
            _check_and_pack(source, files, task, part, folder, options, progress)
    except OSError as error:
        raise MachineError(
            "the bundle cannot be written",
            f"{folder}: {error.strerror}",
            "free space or choose another folder; the previous bundle is unchanged",
        ) from error


def write_files(
    model: PreTrainedModel, options: ExportOptions, quantized: QuantizedStudent | None
) -> ExportedFiles:
    """Write the graphs of a classifier; fp32 is always among them."""
    graphs = {"fp32": to_onnx(model)}
    if FP16 in options.precisions:
        graphs[FP16] = to_half(graphs["fp32"])
    if quantized is None:
        if options.int8:
            graphs["int8"] = quantize(graphs["fp32"], options.scheme)
        return ExportedFiles(graphs, replace(options.scheme, activations="dynamic"))
    graphs["int8"] = to_int8(quantized.model)
    if "portable" in options.precisions:
        graphs["portable"] = to_portable(quantized.model)
    return ExportedFiles(graphs, quantized.scheme, quantized)


def _check_and_pack(
    source: ExportInput,
    files: ExportedFiles,
    task: Task,
    part: Path,
    folder: Path,
    options: ExportOptions,
    progress: Progress,
) -> None:
    precisions = options.precisions
    opened = begin_bundle(part, source, files)
    classifiers = {name: Classifier.from_bundle(opened, name) for name in files.graphs}
    texts = EncodedTexts(classifiers["fp32"], task.test)
    figures = _check_fp32(source, classifiers["fp32"], texts, progress)
    scores, logits = _score_files(source, classifiers, task.test, progress)
    if "int8" in files.graphs:
        int8 = _check_int8(files, opened, classifiers["int8"], texts, logits)
        figures = replace(figures, int8=int8)
    spec = task.spec
    if FP16 in files.graphs:
        report = check_same_predictions(FP16, logits[FP16], "fp32", logits["fp32"], spec)
        figures = replace(figures, fp16=report)
    if "portable" in files.graphs:
        report = check_same_predictions(
            "portable", logits["portable"], "int8", logits["int8"], spec
        )
        figures = replace(figures, portable=report)
    wanted = {"int8" if name == AUTO else name for name in precisions}
    packed = [name for name in files.graphs if name in wanted]
    if source.largest_drop is not None:
        decision = evaluate_variants(opened, source, files, task)
        figures = replace(figures, variants=decision)
        _report_slow(source.name, decision, progress)
        if decision.loss_reason and "int8" in wanted:
            _check_float_allowed(precisions, decision.loss_reason)
            packed = _float_files(packed)
            progress.say(
                f"{source.name}: int8 is not worth packing: {decision.loss_reason}; the bundle "
                f"contains {' and '.join(packed)}"
            )
    chosen = {name: classifiers[name] for name in packed}
    fit = NOT_FITTED
    if source.calibrated:
        fit = fit_on_validation(_first_choice(chosen), task.validation, source.teacher_validation)
        figures = replace(figures, calibration=fit.figures)
    manifest = manifest_of(source, files, packed, figures, scores, fit.temperature)
    golden = golden_rows(chosen, task.test, options.golden_from)
    finish_bundle(
        part,
        folder,
        manifest,
        figures,
        golden,
        agreement=fit.table,
        provenance=source.provenance,
    )


def _float_files(precisions: Sequence[str]) -> list[str]:
    """Return the files that are not integers, at least fp32."""
    floats = [name for name in precisions if name in ("fp32", FP16)]
    return floats or ["fp32"]


def _first_choice(classifiers: Mapping[str, Classifier]) -> Classifier:
    """Return the file that `Classifier.load` uses on a CPU."""
    return next(classifiers[name] for name in CPU_ORDER if name in classifiers)


class EncodedTexts:
    """The texts of a split as a bundle's files read them.

    Attributes:
        lengths: Number of tokens of each text, with those of its pair. *Shape:* (N,)
        second_lengths: Number of tokens of each second text; 0 without pairs. *Shape:* (N,)
    """

    def __init__(self, classifier: Classifier, split: Split) -> None:
        self.classifier, self.split = classifier, split
        lengths = token_lengths(classifier, split.texts, split.pairs)
        self.lengths, self.second_lengths = lengths[:, 0], lengths[:, 1]

    def encode(self, indices: Sequence[int]) -> Encoded:
        """Return a batch (B, T) of the texts with these indices."""
        texts = [self.split.texts[i] for i in indices]
        pairs = None
        if self.split.pairs is not None:
            pairs = [self.split.pairs[i] for i in indices]
        return self.classifier.encode(texts, pairs)


def token_lengths(
    classifier: Classifier, texts: Sequence[str], pairs: Sequence[str] | None
) -> np.ndarray:
    """Return the numbers of tokens (N, 2) of each text, and of its second text alone."""
    lengths = []
    for start in range(0, len(texts), 1024):  # A single batch would be padded to the longest text.
        rows = slice(start, start + 1024)
        encoded = classifier.encode(texts[rows], None if pairs is None else pairs[rows])
        both = encoded["attention_mask"].sum(1)
        types = encoded.get("token_type_ids")
        second = np.zeros_like(both) if types is None else types.sum(1)
        lengths.append(np.stack([both, second], 1))
    return np.concatenate(lengths)


def _check_fp32(
    source: ExportInput, classifier: Classifier, texts: EncodedTexts, progress: Progress
) -> ParityFigures:
    batches = parity_batches(texts.encode, texts.lengths, source.max_length)
    report = check_parity(source.model, classifier.run, batches, source.spec)
    progress.say(
        f"{source.name}: the fp32 file gives the same predictions as torch (largest logit "
        f"difference {report.max_abs_logit:.2g})"
    )
    return ParityFigures(fp32=report, vocabulary=source.vocabulary)


def _score_files(
    source: ExportInput, classifiers: Mapping[str, Classifier], test: Split, progress: Progress
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Return the metric and the logits (N, C) of every file on the test split."""
    scores, logits = {}, {}
    for name, classifier in classifiers.items():
        scores[name], logits[name] = file_score(classifier, test)
        progress.say(f"{source.name}: {name} file scores {scores[name]:.4f} {source.spec.metric}")
    return scores, logits


def _check_int8(
    files: ExportedFiles,
    opened: Bundle,
    classifier: Classifier,
    texts: EncodedTexts,
    logits: Mapping[str, np.ndarray],
) -> Int8Figures:
    """Measure an int8 file and, if its ranges are fixed, check it."""
    spec = classifier.spec
    quantized = files.quantized
    # A dynamic file is only measured, and a teacher is slow: a few texts are enough.
    batches = measure_batch_dependence(
        classifier.run,
        texts.encode,
        texts.lengths,
        texts.second_lengths,
        spec,
        padded_texts=GROUP if quantized is None else PADDED,
    )
    comparison = compare_logits(logits["fp32"], logits["int8"], spec)
    if quantized is None:
        return Int8Figures(comparison, batches)
    student = quantized.model
    exact = export_of(student).exact_in_batches(student.config)
    check_batch_independence(batches, exact=exact)
    graph = opened.contents[PRECISIONS["int8"]]
    chosen = [texts.encode([i]) for i in spread_over(texts.lengths, COMPARED_TEXTS)]
    integers = check_integers(quantized.model, graph, chosen, spec)
    return Int8Figures(comparison, batches, integers, quantized.result)


def _report_slow(name: str, decision: VariantDecision, progress: Progress) -> None:
    if decision.slow_reason:
        progress.say(f"{name}: int8 only saves bytes on this machine: {decision.slow_reason}")


def _check_float_allowed(precisions: Sequence[str], loss_reason: str) -> None:
    """Raise CheckFailed if only the int8 file may be packed."""
    if AUTO not in precisions and "fp32" not in precisions:
        raise CheckFailed(
            "the int8 file is not worth packing",
            loss_reason,
            "use --precision auto to get the float file; or, if the score is too low, set a higher "
            "student.quantize.largest_drop in the recipe, and run `kdedge distill` with it first",
        )
