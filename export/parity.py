"""The gate between torch and the files: the fp32 graph must answer as the model does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from kdedge.errors import CheckFailed
from kdedge.runtime.metrics import decide
from kdedge.runtime.spec import Kind

FP32_TOLERANCE = 1e-5
"""Largest difference of a logit between the model in torch and the fp32 graph."""

OWN_ROUNDING = 2.0
"""Times torch's own distance in fp32 from double precision that the graph may be away, where that is more than the tolerance."""

BATCHES = (1, 8, 32)

BATCH_TOLERANCE = 1e-6
"""Largest difference of a logit of a static int8 file between a text alone and among others of its length."""

GROUPS, GROUP = 8, 32
"""How many lengths, and how many texts of each, are asked about alone and together."""

PADDED = 512
"""At most so many texts are asked about in padded batches of `GROUP`."""

SAME_ANSWERS = 0.99
"""Share of answers that a file must have in common with the one that it stands for."""

Encoded = Mapping[str, np.ndarray]
Forward = Callable[[Encoded], np.ndarray]


@dataclass(frozen=True)
class ParityReport:
    """Figures of one comparison: texts compared, largest logit difference, share of equal answers.

    torch_fp32: largest difference from the model as torch computes it in fp32, with torch's own rounding in it.
    torch_rounding: how far torch in fp32 itself is from the reference.
    """

    texts: int
    max_abs_logit: float
    agreement: float
    torch_fp32: float | None = None
    torch_rounding: float | None = None

    def differs(self, same: float) -> bool:
        """Whether less than a share `same` of the answers is equal; a single one may always differ."""
        return (1 - self.agreement) * self.texts > max(1.0, (1 - same) * self.texts) + 1e-6

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}


def compare_logits(reference: np.ndarray, answers: np.ndarray, kind: Kind) -> ParityReport:
    """Logits (N, C) against logits (N, C); for regression, equal answers are those within 1 % of the reference's range."""
    if kind == "regression":
        same = np.abs(reference[:, 0] - answers[:, 0]) <= max(
            FP32_TOLERANCE, 0.01 * float(np.ptp(reference))
        )
    else:
        mine, theirs = decide(kind, reference), decide(kind, answers)
        same = mine == theirs if mine.ndim == 1 else (mine == theirs).all(1)
    return ParityReport(
        len(reference), float(np.abs(reference - answers).max()), float(same.mean())
    )


def check_parity(
    model: PreTrainedModel, run: Forward, batches: Sequence[Encoded], kind: Kind
) -> ParityReport:
    """The fp32 gate over encoded batches (B, T).

    The reference is torch with the model's weights in double precision, so that the file's own rounding is what
    counts: torch in fp32 strays from it as far as the file does, and the two errors would be added up. That sum is
    told beside it, as `torch_fp32`.
    Raises GateFailed with the figures when a logit differs by more than 1e-5, or an answer differs. Of a model whose fp32
    answers torch itself cannot give to 1e-5, since it is deep or its logits are large, twice torch's own error may be.
    """
    if model.training:
        raise CheckFailed(
            "the reference of parity must be in evaluation mode",
            type(model).__name__,
            "call .eval() first",
        )
    exact = deepcopy(model).double()
    reference, rounded, answers = (
        np.concatenate([ask(batch) for batch in batches])
        for ask in (partial(torch_logits, exact), partial(torch_logits, model), run)
    )
    own, beside = float(np.abs(rounded - reference).max()), float(np.abs(rounded - answers).max())
    report = replace(
        compare_logits(reference, answers, kind), torch_fp32=beside, torch_rounding=own
    )
    allowed = max(FP32_TOLERANCE, OWN_ROUNDING * own)
    if not (report.max_abs_logit <= allowed and report.agreement == 1.0):
        raise CheckFailed(
            f"the fp32 graph must answer as torch does: logits within {allowed:.2g}, all answers equal",
            f"largest difference {report.max_abs_logit:.3g} (torch's own: {own:.2g}), {100 * report.agreement:.2f} % equal answers over {report.texts} texts",
            "nothing was packed; the former bundle is intact",
        )
    return report


def torch_logits(model: PreTrainedModel, batch: Encoded) -> np.ndarray:
    """Logits (B, C) of the model on the CPU, in the precision of its weights."""
    with torch.inference_mode():
        return model(
            **{name: torch.from_numpy(values) for name, values in batch.items()}
        ).logits.numpy()


def parity_batches(
    encode: Callable[[Sequence[int]], Encoded], lengths: np.ndarray, max_length: int
) -> list[Encoded]:
    """Batches that a graph must pass, at batch 1, 8 and 32: real texts, and tokens of the longest at 1 to `max_length`.

    encode: indices of texts -> their batch. lengths: (N,) tokens of each text.
    """
    order = np.argsort(lengths, kind="stable")
    spread = spread_over(lengths)
    batches = [encode([i]) for i in spread]
    for size in BATCHES[1:]:
        batches += [
            encode(order[start : start + size].tolist())
            for start in np.linspace(0, max(0, len(order) - size), 4).astype(int)
        ]
        batches.append(encode(spread[:: max(1, len(spread) // size)]))
    longest = {name: values[0] for name, values in encode([int(order[-1])]).items()}
    return batches + [
        generated_batch(longest, size, length)
        for length in length_steps(max_length)
        for size in BATCHES
    ]


def spread_over(lengths: np.ndarray, count: int = 32) -> list[int]:
    """Indices of at most `count` texts, evenly from the shortest to the longest."""
    order = np.argsort(lengths, kind="stable")
    return [int(i) for i in order[np.unique(np.linspace(0, len(order) - 1, count).astype(int))]]


def length_steps(longest: int) -> list[int]:
    """1, 2, 3, 5, 8, ... and `longest` tokens."""
    steps = [1]
    while steps[-1] < longest:
        steps.append(min(longest, max(steps[-1] + 1, round(steps[-1] * 1.6))))
    return steps


def generated_batch(row: Mapping[str, np.ndarray], size: int, length: int) -> Encoded:
    """`size` rows (B, T) of `row`'s tokens repeated to `length`, each begun one token later and padded a little more."""
    places = (np.arange(length) + np.arange(size)[:, None]) % len(row["input_ids"])  # (B, T)
    kept = np.arange(length) < length - np.arange(size)[:, None] * length // (2 * size)
    return {name: np.where(kept, values[places], 0) for name, values in row.items()}


def measure_batch_dependence(
    run: Forward,
    encode: Callable[[Sequence[int]], Encoded],
    lengths: np.ndarray,
    kind: Kind,
    *,
    padded_texts: int = PADDED,
) -> dict[str, Any]:
    """What becomes of single texts in batches (R14): largest logit difference, and answers changed.

    batch_dependence: among others of their length, as `Classifier` batches on a CPU. padding_*: among others of other lengths, padded to
    the longest, as others may call the file: texts asked about (`padded_texts` at most), how many of them moved at all, how far, and answers changed.
    """
    group = [rows if len(rows) > 1 else rows * 2 for rows in of_one_length(lengths)]
    batch = max(compare_alone_vs_batch(run, encode, rows, kind)[0].max_abs_logit for rows in group)
    mixed = np.random.default_rng(0).permutation(spread_over(lengths, padded_texts)).tolist()
    padded = [
        compare_alone_vs_batch(run, encode, mixed[start : start + GROUP], kind)
        for start in range(0, len(mixed), GROUP)
    ]
    return {
        "batch_dependence": batch,
        "padding_texts": len(mixed),
        "padding_moved": sum(moved for _, moved in padded),
        "padding_dependence": max(report.max_abs_logit for report, _ in padded),
        "padding_changes": sum(
            round((1 - report.agreement) * report.texts) for report, _ in padded
        ),
    }


def of_one_length(lengths: np.ndarray) -> list[list[int]]:
    """Indices of at most `GROUP` texts of one length, for at most `GROUPS` lengths from the shortest to the longest."""
    found = np.unique(lengths)
    chosen = found[np.unique(np.linspace(0, len(found) - 1, GROUPS).astype(int))]
    return [np.flatnonzero(lengths == length)[:GROUP].tolist() for length in chosen]


def compare_alone_vs_batch(
    run: Forward, encode: Callable[[Sequence[int]], Encoded], rows: list[int], kind: Kind
) -> tuple[ParityReport, int]:
    """Texts alone against the same texts in one batch, and how many of them moved."""
    together, alone = run(encode(rows)), np.concatenate([run(encode([i])) for i in rows])
    return compare_logits(alone, together, kind), int(
        (~(np.abs(together - alone).max(1) <= BATCH_TOLERANCE)).sum()
    )


def check_batch_independence(figures: Mapping[str, Any], *, exact: bool = False) -> None:
    """Raises GateFailed when the answers of a file with fixed ranges move with the rest of the batch (R14).

    Padding reaches the file's integers only where an activation lies on a half, and the last bit of a float norm decides:
    logits may then move by a rounding step, and one answer of a hundred with them, no more. exact: of a BiLSTM, which never reads
    its padding, no answer may change.
    """
    most = 0 if exact else max(1, (1 - SAME_ANSWERS) * figures["padding_texts"])
    if not figures["batch_dependence"] <= BATCH_TOLERANCE or figures["padding_changes"] > most:
        raise CheckFailed(
            "a file with fixed ranges must answer a text alike alone and in a batch",
            f"logits differ by {figures['batch_dependence']:.3g}, {BATCH_TOLERANCE:g} is allowed; {figures['padding_changes']} of {figures['padding_texts']} answers change with padding",
            "nothing was packed; export with --scheme dynamic, which bounds the difference instead",
        )


def check_same_answers(
    name: str, answers: np.ndarray, like: str, reference: np.ndarray, kind: Kind
) -> dict[str, Any]:
    """Figures of a file's logits (N, C) against those of the file that it stands for. Raises GateFailed where more answers than one differ, and than 1 %."""
    report = compare_logits(reference, answers, kind)
    if report.differs(SAME_ANSWERS):
        raise CheckFailed(
            f"the {name} file must answer as the {like} file does",
            f"{report}",
            f"nothing was packed; leave the {name} file out",
        )
    return report.to_json()
