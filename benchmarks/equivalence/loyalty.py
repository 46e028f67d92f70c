"""Loyalty to the teacher: how alike labels and probabilities are (Xu et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from kdedge.benchmarks.equivalence.shares import share_interval

from kdedge.runtime.agreement import same_label
from kdedge.runtime.prediction import probabilities
from kdedge.runtime.spec import TaskSpec


@dataclass(frozen=True)
class Loyalty:
    """How often a student and its teacher agree (Xu et al. 2021, arXiv 2109.03228, section 3).

    Attributes:
        agreement: Share of the texts with the same label, or with the same set of labels. The
            paper calls it label loyalty.
        low: Lower end of its 95 % interval (Wilson).
        high: Upper end.
        probability: Probability loyalty, the mean of 1 - sqrt(JS) over the texts.
        texts: Number of texts.
    """

    agreement: float
    low: float
    high: float
    probability: float
    texts: int


def loyalty_of(spec: TaskSpec, student: np.ndarray, teacher: np.ndarray) -> Loyalty:
    """Compare logits (N, C) of a student with those of its teacher on the same N texts."""
    same = same_label(spec, student, teacher)
    count = int(same.sum())
    low, high = share_interval(count, len(same))
    probability = float((1 - np.sqrt(divergences(spec, student, teacher))).mean())
    return Loyalty(count / len(same), low, high, probability, len(same))


def divergences(spec: TaskSpec, student: np.ndarray, teacher: np.ndarray) -> np.ndarray:
    """Compute the Jensen-Shannon divergence of two models on each text.

    JS(P, Q) = KL(P, M) / 2 + KL(Q, M) / 2 with M = (P + Q) / 2 (Lin 1991). Logarithms have base 2,
    so that it lies between 0 and 1. For a multilabel task it is the mean over the labels, each as
    a distribution of yes and no. Probabilities are those of the logits, without a temperature.

    Args:
        spec: A classification or multilabel task.
        student: Logits. *Shape:* (N, C)
        teacher: Logits of the same shape.

    Returns:
        *Shape:* (N,)
    """
    first, second = probabilities(spec, student), probabilities(spec, teacher)
    if spec.kind != "multilabel":
        return _divergence(first, second)
    first = np.stack([first, 1 - first], axis=-1)  # (N, C, 2)
    second = np.stack([second, 1 - second], axis=-1)
    return np.asarray(_divergence(first, second).mean(1))


def _divergence(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Compute the Jensen-Shannon divergence of distributions (..., C), in bits: (...)."""
    middle = (first + second) / 2
    both = _kl_bits(first, middle) + _kl_bits(second, middle)
    return np.asarray(np.clip(both / 2, 0, 1))


def _kl_bits(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Compute the Kullback-Leibler divergence of distributions (..., C); 0 log 0 is 0."""
    present = first > 0
    ratio = np.divide(first, second, out=np.ones_like(first), where=present)
    return np.asarray((first * np.log2(ratio)).sum(-1))
