"""Every loss against a loop over numpy that can be checked by eye."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kdedge.distill import losses

RNG = np.random.default_rng(0)
STUDENT = RNG.normal(size=(5, 3)).astype(np.float32) * 2
TEACHER = RNG.normal(size=(5, 3)).astype(np.float32) * 2
MASK = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]], dtype=np.int64)


def softmax(row: np.ndarray) -> np.ndarray:
    shifted = np.exp(row - row.max())
    return shifted / shifted.sum()


def sigmoid(x: float) -> float:
    return 1 / (1 + np.exp(-x))


def t(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array)


def test_logit_mse_is_the_mean_square() -> None:
    total = sum((STUDENT[i, c] - TEACHER[i, c]) ** 2 for i in range(5) for c in range(3))
    assert float(losses.logit_mse(t(STUDENT), t(TEACHER))) == pytest.approx(total / 15, rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
def test_kl_carries_the_square_of_the_temperature(temperature: float) -> None:
    total = 0.0
    for s, u in zip(STUDENT, TEACHER, strict=True):
        p, q = softmax(u / temperature), softmax(s / temperature)
        total += sum(p[c] * (np.log(p[c]) - np.log(q[c])) for c in range(3))
    expected = temperature**2 * total / 5
    assert float(losses.soft_cross_entropy_kl(t(STUDENT), t(TEACHER), temperature)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_binary_kl_sums_over_bernoullis(temperature: float) -> None:
    total = 0.0
    for s, u in zip(STUDENT.ravel(), TEACHER.ravel(), strict=True):
        p, q = sigmoid(u / temperature), sigmoid(s / temperature)
        total += p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    expected = temperature**2 * total / 15
    assert float(losses.soft_binary_kl(t(STUDENT), t(TEACHER), temperature)) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("kl", [losses.soft_cross_entropy_kl, losses.soft_binary_kl])
def test_kl_of_a_model_with_itself_is_zero(kl) -> None:
    assert float(kl(t(TEACHER), t(TEACHER), 2.0)) == pytest.approx(0, abs=1e-6)


def test_label_loss_of_classes_leaves_out_rows_without_a_label() -> None:
    labels = np.array([0, 2, -1, 1, -1])
    rows = [(0, 0), (1, 2), (3, 1)]
    expected = -np.mean([np.log(softmax(STUDENT[i])[c]) for i, c in rows])
    assert float(losses.label_loss(t(STUDENT), t(labels), "classification")) == pytest.approx(expected, rel=1e-5)


def test_label_loss_of_many_labels() -> None:
    labels = np.array([[1, 0, 1]] * 4 + [[np.nan] * 3], dtype=np.float32)
    terms = [-(labels[i, c] * np.log(sigmoid(STUDENT[i, c])) + (1 - labels[i, c]) * np.log(1 - sigmoid(STUDENT[i, c]))) for i in range(4) for c in range(3)]
    assert float(losses.label_loss(t(STUDENT), t(labels), "multilabel")) == pytest.approx(np.mean(terms), rel=1e-5)


def test_label_loss_of_a_number() -> None:
    labels = np.array([1.0, np.nan, 3.0, 0.5, np.nan], dtype=np.float32)
    expected = np.mean([(STUDENT[i, 0] - labels[i]) ** 2 for i in (0, 2, 3)])
    assert float(losses.label_loss(t(STUDENT[:, :1]), t(labels), "regression")) == pytest.approx(expected, rel=1e-5)


def test_label_loss_without_any_label_is_zero_and_has_a_gradient() -> None:
    logits = t(STUDENT).requires_grad_()
    loss = losses.label_loss(logits, torch.full((5,), -1), "classification")
    loss.backward()
    assert float(loss.detach()) == 0 and float(logits.grad.abs().sum()) == 0


def test_hidden_mse_counts_real_tokens_only() -> None:
    mine, theirs = (RNG.normal(size=(3, 4, 6)).astype(np.float32) for _ in range(2))
    places = [(b, i) for b in range(3) for i in range(4) if MASK[b, i]]
    expected = np.mean([np.mean((mine[b, i] - theirs[b, i]) ** 2) for b, i in places])
    assert float(losses.hidden_mse(t(mine), t(theirs), t(MASK))) == pytest.approx(expected, rel=1e-5)


def test_attention_mse_counts_pairs_of_real_tokens_only() -> None:
    mine, theirs = (RNG.normal(size=(3, 2, 4, 4)).astype(np.float32) for _ in range(2))
    pairs = [(b, h, i, j) for b in range(3) for h in range(2) for i in range(4) for j in range(4) if MASK[b, i] and MASK[b, j]]
    expected = np.mean([(mine[p] - theirs[p]) ** 2 for p in pairs])
    assert float(losses.attention_mse(t(mine), t(theirs), t(MASK))) == pytest.approx(expected, rel=1e-5)
