"""Checks between torch and the files: the fp32 graph must give the same logits as the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from kdedge.errors import CheckFailed
from kdedge.runtime.metrics import decide
from kdedge.runtime.spec import TaskSpec

FP32_TOLERANCE = 1e-5
"""Largest allowed difference of a logit between the model in torch and the fp32 graph."""

TORCH_ROUNDING_FACTOR = 2.0
"""The graph's error may be this many times torch's own fp32 error, if that is more."""

BATCHES = (1, 8, 32)

BATCH_TOLERANCE = 1e-6
"""Largest allowed difference of a logit between a text alone and among texts of its length.

Two pairs have the same length if their first texts have, and their second texts have.
"""

GROUPS, GROUP = 8, 32
"""How many lengths, and how many texts of each, are compared alone and in a batch."""

PADDED = 512
"""Most texts that are compared in padded batches of `GROUP`."""

SAME_PREDICTIONS = 0.99
"""Least share of equal predictions between a file and the file that it stands for."""

Encoded = Mapping[str, np.ndarray]
Encode = Callable[[Sequence[int]], Encoded]
"""From indices of texts to their batch (B, T)."""

Forward = Callable[[Encoded], np.ndarray]
"""From a batch (B, T) to logits (B, C)."""


@dataclass(frozen=True)
class ParityReport:
    """A comparison of logits.

    Attributes:
        texts: Number of compared texts.
        max_abs_logit: Largest difference of a logit.
        agreement: Share of equal predictions.
        torch_fp32: Largest difference from torch in fp32; includes torch's own rounding.
        torch_rounding: Largest difference between torch in fp32 and in double precision.
    """

    texts: int
    max_abs_logit: float
    agreement: float
    torch_fp32: float | None = None
    torch_rounding: float | None = None

    def differs(self, least_agreement: float) -> bool:
        """Whether the agreement is too low; a single prediction may always differ."""
        changed = (1 - self.agreement) * self.texts
        return changed > max(1.0, (1 - least_agreement) * self.texts) + 1e-6

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class BatchDependence:
    """How much the logits of a text depend on the rest of its batch.

    Attributes:
        batch_dependence: Largest logit difference between a text alone and among texts of its
            length, as `Classifier` batches on a CPU.
        padding_texts: Texts that were compared alone and in padded batches.
        padding_moved: How many of them have another logit there.
        padding_dependence: Largest logit difference there.
        padding_changes: How many predictions differ there.
    """

    batch_dependence: float
    padding_texts: int
    padding_moved: int
    padding_dependence: float
    padding_changes: int


def compare_logits(reference: np.ndarray, logits: np.ndarray, spec: TaskSpec) -> ParityReport:
    """Compare logits (N, C) with a reference (N, C).

    Predictions of a regression are equal if they differ by at most 1 % of the reference's range.
    """
    difference = np.abs(reference - logits)
    if spec.kind == "regression":
        allowed = max(FP32_TOLERANCE, 0.01 * float(np.ptp(reference)))
        same = difference[:, 0] <= allowed
    else:
        same = decide(spec, reference) == decide(spec, logits)
        if same.ndim > 1:
            same = same.all(1)
    return ParityReport(len(reference), float(difference.max()), float(same.mean()))


def check_parity(
    model: PreTrainedModel, run: Forward, batches: Sequence[Encoded], spec: TaskSpec
) -> ParityReport:
    """Check the fp32 graph on batches (B, T).

    The reference is torch with the weights in double precision, so only the file's own rounding
    counts. Torch in fp32 has an error of the same size, and a comparison with it would add both;
    that sum is reported as `torch_fp32`.

    A logit may differ by 1e-5, or by twice torch's own fp32 error if the model is so deep, or its
    logits so large, that torch itself is less exact.

    Raises:
        CheckFailed: If a logit differs by more, or a prediction differs.
    """
    if model.training:
        raise CheckFailed(
            "the reference of a parity check must be in evaluation mode",
            type(model).__name__,
            "call .eval() first",
        )
    exact_model = deepcopy(model).double()
    exact = np.concatenate([torch_logits(exact_model, batch) for batch in batches])
    fp32 = np.concatenate([torch_logits(model, batch) for batch in batches])
    logits = np.concatenate([run(batch) for batch in batches])
    torch_rounding = float(np.abs(fp32 - exact).max())
    report = replace(
        compare_logits(exact, logits, spec),
        torch_fp32=float(np.abs(fp32 - logits).max()),
        torch_rounding=torch_rounding,
    )
    allowed = max(FP32_TOLERANCE, TORCH_ROUNDING_FACTOR * torch_rounding)
    # Not `>`: a difference that is not a number must fail too.
    if not (report.max_abs_logit <= allowed and report.agreement == 1.0):
        raise CheckFailed(
            "the fp32 graph must give the same predictions as torch, and logits within "
            f"{allowed:.2g}",
            f"largest difference {report.max_abs_logit:.3g} (torch's own: {torch_rounding:.2g}), "
            f"{100 * report.agreement:.2f} % equal predictions on {report.texts} texts",
            "nothing was packed; the previous bundle is unchanged",
        )
    return report


def torch_logits(model: PreTrainedModel, batch: Encoded) -> np.ndarray:
    """Return the logits (B, C) of a model on the CPU, in the precision of its weights."""
    tensors = {name: torch.from_numpy(values) for name, values in batch.items()}
    with torch.inference_mode():
        logits: np.ndarray = model(**tensors).logits.numpy()
    return logits


def parity_batches(encode: Encode, lengths: np.ndarray, max_length: int) -> list[Encoded]:
    """Return the batches for `check_parity`, with batch sizes 1, 8 and 32.

    They are real texts of all lengths, and the tokens of the longest text at 1 to `max_length`.
    `lengths` (N,) are the tokens of each text.
    """
    order = np.argsort(lengths, kind="stable")
    spread = spread_over(lengths)
    batches = [encode([i]) for i in spread]
    for size in BATCHES[1:]:
        for start in np.linspace(0, max(0, len(order) - size), 4).astype(int):
            batches.append(encode(order[start : start + size].tolist()))
        batches.append(encode(spread[:: max(1, len(spread) // size)]))
    longest = {name: values[0] for name, values in encode([int(order[-1])]).items()}
    for length in length_steps(max_length):
        for size in BATCHES:
            batches.append(generated_batch(longest, size, length))
    return batches


def spread_over(lengths: np.ndarray, count: int = 32) -> list[int]:
    """Return indices of at most `count` texts, evenly from the shortest to the longest."""
    order = np.argsort(lengths, kind="stable")
    positions = np.unique(np.linspace(0, len(order) - 1, count).astype(int))
    return [int(i) for i in order[positions]]


def length_steps(longest: int) -> list[int]:
    """Return 1, 2, 3, 5, 8, ... and `longest`."""
    steps = [1]
    while steps[-1] < longest:
        steps.append(min(longest, max(steps[-1] + 1, round(steps[-1] * 1.6))))
    return steps


def generated_batch(row: Mapping[str, np.ndarray], size: int, length: int) -> Encoded:
    """Repeat the tokens of a row (T,) to a batch (size, length).

    Each row starts one token later than the row before and has a little more padding.
    """
    positions = np.arange(length) + np.arange(size)[:, None]  # (B, T)
    is_token = np.arange(length) < length - np.arange(size)[:, None] * length // (2 * size)
    batch = {}
    for name, values in row.items():
        batch[name] = np.where(is_token, values[positions % len(row["input_ids"])], 0)
    return batch


def measure_batch_dependence(
    run: Forward,
    encode: Encode,
    lengths: np.ndarray,
    second_lengths: np.ndarray,
    spec: TaskSpec,
    *,
    padded_texts: int = PADDED,
) -> BatchDependence:
    """Compare texts alone with the same texts in batches of one length, and in padded batches.

    Args:
        run: Runs the file.
        encode: Encodes a batch.
        lengths: Number of tokens of each text, with those of its pair. *Shape:* (N,)
        second_lengths: Number of tokens of each second text; 0 without pairs. *Shape:* (N,)
        spec: The task.
        padded_texts: Most texts that are compared in padded batches.
    """
    largest = 0.0
    for rows in of_one_length(lengths, second_lengths):
        several = rows if len(rows) > 1 else rows * 2
        report, _ = compare_alone_vs_batch(run, encode, several, spec)
        largest = float(np.maximum(largest, report.max_abs_logit))  # keeps NaN
    mixed = np.random.default_rng(0).permutation(spread_over(lengths, padded_texts)).tolist()
    moved, changes, padding = 0, 0, 0.0
    for start in range(0, len(mixed), GROUP):
        report, count = compare_alone_vs_batch(run, encode, mixed[start : start + GROUP], spec)
        moved += count
        changes += round((1 - report.agreement) * report.texts)
        padding = float(np.maximum(padding, report.max_abs_logit))
    return BatchDependence(largest, len(mixed), moved, padding, changes)


def of_one_length(lengths: np.ndarray, second_lengths: np.ndarray) -> list[list[int]]:
    """Return indices of up to `GROUP` texts of one length, for up to `GROUPS` lengths.

    Of the pairs of one length, those are taken whose second texts have the most frequent length.
    """
    unique = np.unique(lengths)
    chosen = unique[np.unique(np.linspace(0, len(unique) - 1, GROUPS).astype(int))]
    groups = []
    for length in chosen:
        rows = np.flatnonzero(lengths == length)
        seconds, counts = np.unique(second_lengths[rows], return_counts=True)
        rows = rows[second_lengths[rows] == seconds[counts.argmax()]]
        groups.append(rows[:GROUP].tolist())
    return groups


def compare_alone_vs_batch(
    run: Forward, encode: Encode, rows: list[int], spec: TaskSpec
) -> tuple[ParityReport, int]:
    """Compare texts alone with the same texts in one batch; also count those that moved."""
    together = run(encode(rows))
    alone = np.concatenate([run(encode([i])) for i in rows])
    unmoved = np.abs(together - alone).max(1) <= BATCH_TOLERANCE
    return compare_logits(alone, together, spec), int((~unmoved).sum())


def check_batch_independence(figures: BatchDependence, *, exact: bool = False) -> None:
    """Check that the logits of a file with fixed ranges do not depend on the batch.

    At most 1 % of the predictions, and always one, may change with padding. Padding changes the
    last bit of a float norm; that matters only if an activation lies halfway between two integers.

    Args:
        figures: How the logits and predictions change.
        exact: Allow no change: for a BiLSTM, which never reads its padding.

    Raises:
        CheckFailed: If more predictions change with padding, or if logits change with other texts
            of the same length.
    """
    allowed = 0 if exact else max(1, (1 - SAME_PREDICTIONS) * figures.padding_texts)
    independent = figures.batch_dependence <= BATCH_TOLERANCE  # False for NaN
    if not independent or figures.padding_changes > allowed:
        raise CheckFailed(
            "a file with fixed ranges must give a text the same result alone and in a batch",
            f"logits differ by {figures.batch_dependence:.3g}, {BATCH_TOLERANCE:g} is allowed; "
            f"{figures.padding_changes} of {figures.padding_texts} predictions change with padding",
            "nothing was packed; export with --scheme dynamic, which only measures the difference",
        )


def check_same_predictions(
    name: str, logits: np.ndarray, reference_name: str, reference: np.ndarray, spec: TaskSpec
) -> ParityReport:
    """Compare logits (N, C) with those of the file that a file stands for.

    Raises:
        CheckFailed: If more than 1 % of the predictions differ, and more than one.
    """
    report = compare_logits(reference, logits, spec)
    if report.differs(SAME_PREDICTIONS):
        raise CheckFailed(
            f"the {name} file must give the same predictions as the {reference_name} file",
            f"{report}",
            f"nothing was packed; leave the {name} file out",
        )
    return report
