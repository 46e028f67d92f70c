"""The agreement of a student with its teacher by confidence, and a cascade's threshold.

`agreement.json` of a bundle holds one row for each validation text: the student's confidence, how
usual the text is, and whether student and teacher predict the same label. It holds no text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kdedge.errors import CheckFailed, IntegrityError, UsageError
from kdedge.runtime.prediction import probabilities
from kdedge.runtime.spec import TaskSpec

ERROR_RATE = 0.05
"""Accepted probability that the agreement is lower than promised."""

UNUSUAL_SHARE = 0.01
"""Share of the validation texts that count as unusual."""

STARTS = 3
"""Number of sequences of tests, each of which starts at another share of the texts."""

STEPS = 100
"""Number of steps of the tested shares, from the fewest possible texts to all."""

MAX_ROWS = 50_000
"""Most texts of an agreement table."""


@dataclass(frozen=True)
class Threshold:
    """When a student may answer alone.

    Attributes:
        confidence: The student answers from this confidence on.
        usualness: The student answers texts from this usualness on (see `usualness`).
        share: Share of the validation texts that pass both.
        agreement: Share of these texts on which student and teacher agree.
        lower_bound: Lower bound of the agreement on new texts of the same kind.
        texts: Number of validation texts.
    """

    confidence: float
    usualness: float
    share: float
    agreement: float
    lower_bound: float
    texts: int


@dataclass(frozen=True)
class AgreementTable:
    """Student and teacher on N validation texts.

    Attributes:
        precision: Name of the student's ONNX file that was measured.
        confidence: Probability of the predicted label. *Shape:* (N,)
        usualness: See the function `usualness`. *Shape:* (N,)
        agrees: Whether both predict the same label. *Shape:* (N,) bool
    """

    precision: str
    confidence: np.ndarray
    usualness: np.ndarray
    agrees: np.ndarray

    def __len__(self) -> int:
        return len(self.agrees)

    def threshold(self, agreement: float = 0.99) -> Threshold:
        """Choose the threshold that lets the student answer most texts.

        Texts are sorted by confidence. From each of `STARTS` fixed shares on, growing shares are
        tested one after the other, until the Clopper-Pearson lower bound of one is below
        `agreement`. The largest share that passed is taken. The order of the tests does not
        depend on their results, so all tests of a sequence may use the same error rate, which is
        `ERROR_RATE / STARTS` ("fixed sequence testing", Angelopoulos et al. 2021, Learn then
        Test, section 4). The student does not answer texts that are as unusual as the most
        unusual `UNUSUAL_SHARE` of the validation texts.

        Args:
            agreement: Share of the student's own answers that must agree with the teacher.

        Raises:
            UsageError: If `agreement` is not between 0 and 1.
            CheckFailed: If no threshold has this agreement with this probability.
        """
        check_agreement(agreement)
        usualness = float(np.quantile(self.usualness, UNUSUAL_SHARE))
        order = np.argsort(-self.confidence, kind="stable")
        order = order[self.usualness[order] >= usualness]
        disagreements = np.cumsum(~self.agrees[order])
        rate = ERROR_RATE / STARTS
        chosen = 0
        ends = _tie_ends(self.confidence[order])
        for counts in _sequences(len(order), needed_texts(agreement, rate)):
            for least in counts:
                count = int(ends[least - 1])
                if binomial_cdf(int(disagreements[count - 1]), count, 1 - agreement) > rate:
                    break
                chosen = max(chosen, count)
        if not chosen:
            raise _no_threshold(len(order), agreement, rate)
        agreed = chosen - int(disagreements[chosen - 1])
        return Threshold(
            confidence=float(self.confidence[order[chosen - 1]]),
            usualness=usualness,
            share=chosen / len(self),
            agreement=agreed / chosen,
            lower_bound=lower_bound(agreed, chosen, rate),
            texts=len(self),
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "precision": self.precision,
            "confidence": [float(f"{value:.7g}") for value in self.confidence],
            "usualness": [float(f"{value:.7g}") for value in self.usualness],
            "agrees": [int(value) for value in self.agrees],
        }

    @classmethod
    def from_json(cls, document: Any) -> AgreementTable:
        """Read a parsed agreement.json. Raises IntegrityError if it is malformed."""
        if not isinstance(document, Mapping) or not isinstance(document.get("precision"), str):
            raise _malformed("it names no precision")
        columns = []
        for name in ("confidence", "usualness", "agrees"):
            column = document.get(name)
            if not isinstance(column, list) or not 0 < len(column) <= MAX_ROWS:
                raise _malformed(f"{name} is not a list of 1 to {MAX_ROWS:,} numbers")
            if not all(_is_number(value) for value in column):
                raise _malformed(f"{name} holds something other than numbers")
            columns.append(np.array(column, dtype=np.float64))
        if len({len(column) for column in columns}) != 1:
            raise _malformed("its columns have different lengths")
        return cls(document["precision"], columns[0], columns[1], columns[2] > 0)


def check_agreement(agreement: Any) -> None:
    """Raise UsageError unless a value is a number between 0 and 1, which are excluded."""
    if not isinstance(agreement, int | float | np.floating) or not 0 < agreement < 1:
        raise UsageError("agreement must lie between 0 and 1", repr(agreement), "give 0.99")


def measure_agreement(
    spec: TaskSpec, precision: str, student: np.ndarray, teacher: np.ndarray, temperature: float
) -> AgreementTable:
    """Compare logits (N, C) of a student with those of its teacher on the same N texts."""
    return AgreementTable(
        precision,
        confidence(spec, student, temperature),
        usualness(student),
        same_label(spec, student, teacher),
    )


def confidence(spec: TaskSpec, logits: np.ndarray, temperature: float) -> np.ndarray:
    """Return the confidence of predictions with logits (N, C): (N,), from 0 to 1.

    It is the probability of the best label. For a multilabel task it is that of the least certain
    decision about a label.
    """
    probs = probabilities(spec, logits, temperature)
    if spec.kind == "multilabel":
        decided = np.where(probs > spec.threshold, probs, 1 - probs)
        return np.asarray(decided.min(1))
    return np.asarray(probs.max(1))


def usualness(logits: np.ndarray) -> np.ndarray:
    """Return how usual texts with logits (N, C) are for the student: (N,).

    It is the negative energy of Liu et al. 2020 (Energy-based out-of-distribution detection):
    log(sum(exp(logits))). It is low for texts unlike those that the student was trained on.
    """
    highest = logits.max(1)
    return np.asarray(highest + np.log(np.exp(logits - highest[:, None]).sum(1)))


def same_label(spec: TaskSpec, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return for N texts whether two models predict the same label: (N,) bool."""
    if spec.kind == "multilabel":
        cut = math.log(spec.threshold / (1 - spec.threshold))
        return np.asarray(((first > cut) == (second > cut)).all(1))
    return np.asarray(first.argmax(1) == second.argmax(1))


def lower_bound(successes: int, trials: int, error_rate: float) -> float:
    """Return the one-sided Clopper-Pearson lower bound of a probability.

    It is the p at which `successes` or more out of `trials` have the probability `error_rate`
    (Clopper and Pearson 1934).
    """
    if successes == 0:
        return 0.0
    low, high = 0.0, successes / trials
    for _ in range(60):
        middle = (low + high) / 2
        if binomial_cdf(trials - successes, trials, 1 - middle) < error_rate:
            low = middle
        else:
            high = middle
    return low


def binomial_cdf(most: int, trials: int, rate: float) -> float:
    """Return P(X <= most) for a binomial X; exact, also for many trials."""
    if rate >= 1.0:
        return 1.0 if most >= trials else 0.0
    count = np.arange(most + 1)
    ways = np.array([_log_ways(trials, k) for k in count.tolist()])
    return float(np.exp(ways + count * math.log(rate) + (trials - count) * math.log1p(-rate)).sum())


def _log_ways(total: int, chosen: int) -> float:
    """Return the logarithm of the binomial coefficient."""
    return math.lgamma(total + 1) - math.lgamma(chosen + 1) - math.lgamma(total - chosen + 1)


def needed_texts(agreement: float, error_rate: float) -> int:
    """Return the fewest texts that can prove an agreement: if both agree on all of them."""
    return math.ceil(math.log(error_rate) / math.log(agreement))


def _tie_ends(confidence: np.ndarray) -> np.ndarray:
    """Return for each text how many are at least as confident: (N,), from the most confident on.

    A threshold lets the student answer all texts of equal confidence, so they are tested together.
    """
    return np.asarray(np.searchsorted(-confidence, -confidence, side="right"))


def _sequences(texts: int, needed: int) -> list[list[int]]:
    """Return the numbers of texts that each sequence tests one after the other."""
    if needed > texts:
        return []
    counts = sorted({int(count) for count in np.linspace(needed, texts, STEPS + 1)})
    starts = sorted({len(counts) * start // STARTS for start in range(STARTS)})
    return [counts[start:] for start in starts]


def _no_threshold(texts: int, agreement: float, error_rate: float) -> CheckFailed:
    """Return the error for a number of validation texts that are not unusual."""
    needed = needed_texts(agreement, error_rate)
    if texts < needed:
        return CheckFailed(
            f"{texts} usual validation texts are too few to promise {agreement:.1%} agreement",
            f"at least {needed} are needed, even if student and teacher agree on all of them; "
            f"{UNUSUAL_SHARE:.0%} of the validation texts count as unusual",
            "ask for less agreement; or give the recipe more validation texts and another name, "
            "distill, and export",
        )
    return CheckFailed(
        f"no threshold keeps an agreement of {agreement:.1%}",
        f"student and teacher differ on too many of the {texts} usual validation texts, even where "
        "the student is most confident",
        "ask for less agreement, or distill a better student",
    )


def _is_number(value: Any) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return -1e30 <= value <= 1e30  # False for NaN


def _malformed(detail: str) -> IntegrityError:
    return IntegrityError("agreement.json of the bundle is malformed", detail, "export again")
