"""Every loss against a loop over numpy that can be checked by eye."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch

from kdedge.nn import losses
from kdedge.recipe import ObjectiveConfig
from kdedge.runtime.spec import Kind

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
    assert float(
        losses.soft_cross_entropy_kl(t(STUDENT), t(TEACHER), temperature)
    ) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_binary_kl_sums_over_bernoullis(temperature: float) -> None:
    total = 0.0
    for s, u in zip(STUDENT.ravel(), TEACHER.ravel(), strict=True):
        p, q = sigmoid(u / temperature), sigmoid(s / temperature)
        total += p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    expected = temperature**2 * total / 15
    assert float(losses.soft_binary_kl(t(STUDENT), t(TEACHER), temperature)) == pytest.approx(
        expected, rel=1e-3
    )


@pytest.mark.parametrize("kl", [losses.soft_cross_entropy_kl, losses.soft_binary_kl])
def test_kl_of_a_model_with_itself_is_zero(kl) -> None:
    assert float(kl(t(TEACHER), t(TEACHER), 2.0)) == pytest.approx(0, abs=1e-6)


def test_label_loss_of_classes_leaves_out_rows_without_a_label() -> None:
    labels = np.array([0, 2, -1, 1, -1])
    rows = [(0, 0), (1, 2), (3, 1)]
    expected = -np.mean([np.log(softmax(STUDENT[i])[c]) for i, c in rows])
    assert float(losses.label_loss(t(STUDENT), t(labels), "classification")) == pytest.approx(
        expected, rel=1e-5
    )


def test_label_loss_of_many_labels() -> None:
    labels = np.array([[1, 0, 1]] * 4 + [[np.nan] * 3], dtype=np.float32)
    terms = [
        -(
            labels[i, c] * np.log(sigmoid(STUDENT[i, c]))
            + (1 - labels[i, c]) * np.log(1 - sigmoid(STUDENT[i, c]))
        )
        for i in range(4)
        for c in range(3)
    ]
    assert float(losses.label_loss(t(STUDENT), t(labels), "multilabel")) == pytest.approx(
        np.mean(terms), rel=1e-5
    )


def test_label_loss_of_a_number() -> None:
    labels = np.array([1.0, np.nan, 3.0, 0.5, np.nan], dtype=np.float32)
    expected = np.mean([(STUDENT[i, 0] - labels[i]) ** 2 for i in (0, 2, 3)])
    assert float(losses.label_loss(t(STUDENT[:, :1]), t(labels), "regression")) == pytest.approx(
        expected, rel=1e-5
    )


def test_label_loss_without_any_label_is_zero_and_has_a_gradient() -> None:
    logits = t(STUDENT).requires_grad_()
    loss = losses.label_loss(logits, torch.full((5,), -1), "classification")
    loss.backward()
    assert float(loss.detach()) == 0 and float(logits.grad.abs().sum()) == 0


def test_hidden_mse_counts_real_tokens_only() -> None:
    mine, theirs = (RNG.normal(size=(3, 4, 6)).astype(np.float32) for _ in range(2))
    places = [(b, i) for b in range(3) for i in range(4) if MASK[b, i]]
    expected = np.mean([np.mean((mine[b, i] - theirs[b, i]) ** 2) for b, i in places])
    assert float(losses.hidden_mse(t(mine), t(theirs), t(MASK))) == pytest.approx(
        expected, rel=1e-5
    )


def test_attention_mse_counts_pairs_of_real_tokens_only() -> None:
    mine, theirs = (RNG.normal(size=(3, 2, 4, 4)).astype(np.float32) for _ in range(2))
    pairs = [
        (b, h, i, j)
        for b in range(3)
        for h in range(2)
        for i in range(4)
        for j in range(4)
        if MASK[b, i] and MASK[b, j]
    ]
    expected = np.mean([(mine[p] - theirs[p]) ** 2 for p in pairs])
    assert float(losses.attention_mse(t(mine), t(theirs), t(MASK))) == pytest.approx(
        expected, rel=1e-5
    )


def test_logit_cosine_is_one_minus_the_cosine() -> None:
    expected = np.mean(
        [
            1 - s @ u / (np.linalg.norm(s) * np.linalg.norm(u))
            for s, u in zip(STUDENT, TEACHER, strict=True)
        ]
    )
    assert float(losses.logit_cosine(t(STUDENT), t(TEACHER))) == pytest.approx(expected, rel=1e-5)
    assert float(losses.logit_cosine(t(3 * TEACHER), t(TEACHER))) == pytest.approx(0, abs=1e-6)


def test_soft_cross_entropies() -> None:
    expected = -np.mean(
        [softmax(u) @ np.log(softmax(s)) for s, u in zip(STUDENT, TEACHER, strict=True)]
    )
    assert float(losses.soft_cross_entropy(t(STUDENT), t(TEACHER))) == pytest.approx(
        expected, rel=1e-5
    )
    p, q = sigmoid(TEACHER), sigmoid(STUDENT)
    expected = -np.mean(p * np.log(q) + (1 - p) * np.log(1 - q))
    assert float(losses.soft_binary_cross_entropy(t(STUDENT), t(TEACHER))) == pytest.approx(
        expected, rel=1e-4
    )


LOGIT_LOSS_NAMES = get_args(ObjectiveConfig.model_fields["logits"].annotation)


@pytest.mark.parametrize("name", LOGIT_LOSS_NAMES)
@pytest.mark.parametrize("kind", ["classification", "multilabel"])
def test_every_logit_loss_of_a_recipe_has_its_own_function(name: str, kind: Kind) -> None:
    value = losses.logit_loss(ObjectiveConfig(logits=name), kind)(t(STUDENT), t(TEACHER))
    others = [other for other in LOGIT_LOSS_NAMES if other != name]
    for other in others:
        loss = losses.logit_loss(ObjectiveConfig(logits=other), kind)
        assert abs(float(loss(t(STUDENT), t(TEACHER)) - value)) > 1e-3


def test_a_logit_loss_without_a_function_is_an_error() -> None:
    unknown = ObjectiveConfig.model_construct(logits="rank")
    with pytest.raises(KeyError, match="rank"):
        losses.logit_loss(unknown, "classification")


MINE, THEIRS = (RNG.normal(size=(3, 4, 6)).astype(np.float32) for _ in range(2))
PLACES = [(b, i) for b in range(3) for i in range(4) if MASK[b, i]]


def test_hidden_cosine_counts_real_tokens_only() -> None:
    expected = np.mean(
        [
            1 - MINE[p] @ THEIRS[p] / np.linalg.norm(MINE[p]) / np.linalg.norm(THEIRS[p])
            for p in PLACES
        ]
    )
    assert float(losses.hidden_cosine(t(MINE), t(THEIRS), t(MASK))) == pytest.approx(
        expected, rel=1e-5
    )


def test_patient_loss_is_the_distance_of_directions_of_the_first_token() -> None:
    expected = np.mean(
        [
            np.sum(
                (
                    MINE[b, 0] / np.linalg.norm(MINE[b, 0])
                    - THEIRS[b, 0] / np.linalg.norm(THEIRS[b, 0])
                )
                ** 2
            )
            for b in range(3)
        ]
    )
    assert float(losses.hidden_pkd(t(MINE), t(THEIRS), t(MASK))) == pytest.approx(
        expected, rel=1e-5
    )


def test_cka_is_that_of_the_gram_matrices_and_fits_any_two_widths() -> None:
    """Kornblith et al. 2019, eq. 3: HSIC of centred Gram matrices, the long way round."""
    wide = RNG.normal(size=(3, 4, 9)).astype(np.float32)
    x, y = (np.array([states[p] for p in PLACES]) for states in (MINE, wide))
    centre = np.eye(len(PLACES)) - 1 / len(PLACES)
    mine, theirs = (centre @ (z @ z.T) @ centre for z in (x, y))
    expected = 1 - np.sum(mine * theirs) / np.sqrt(np.sum(mine * mine) * np.sum(theirs * theirs))
    assert float(losses.hidden_cka(t(MINE), t(wide), t(MASK))) == pytest.approx(expected, rel=1e-4)
    turned = MINE @ np.linalg.qr(RNG.normal(size=(6, 6)))[0].astype(np.float32) * 3 + 1
    assert float(losses.hidden_cka(t(MINE), t(turned), t(MASK))) == pytest.approx(0, abs=1e-5)


def attended(scores: np.ndarray, b: int, h: int, i: int) -> np.ndarray:
    """Where token i looks among the real tokens of its text."""
    return softmax(scores[b, h, i, : MASK[b].sum()])


def test_attention_probabilities_and_their_kl_know_real_tokens_only() -> None:
    mine, theirs = (RNG.normal(size=(3, 2, 4, 4)).astype(np.float32) for _ in range(2))
    rows = [
        (attended(mine, b, h, i), attended(theirs, b, h, i)) for b, i in PLACES for h in range(2)
    ]
    expected = np.mean(np.concatenate([(q - p) ** 2 for q, p in rows]))
    assert float(losses.attention_probability_mse(t(mine), t(theirs), t(MASK))) == pytest.approx(
        expected, rel=1e-4
    )
    expected = np.mean([np.sum(p * np.log(p / q)) for q, p in rows])
    assert float(losses.attention_kl(t(mine), t(theirs), t(MASK))) == pytest.approx(
        expected, rel=1e-4
    )


@pytest.mark.parametrize("heads", [1, 2, 3, 6])
def test_relations_cut_the_joined_heads_anew(heads: int) -> None:
    queries, keys = (RNG.normal(size=(3, 2, 4, 6)).astype(np.float32) for _ in range(2))
    found = losses.relation_scores(t(queries), t(keys), heads).numpy()
    width = 12 // heads
    for b, h, i, j in np.ndindex(3, heads, 4, 4):
        q, k = (
            np.concatenate([part[b, 0, n], part[b, 1, n]])[h * width : (h + 1) * width]
            for part, n in ((queries, i), (keys, j))
        )
        assert found[b, h, i, j] == pytest.approx(q @ k / np.sqrt(width), rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("loss", [losses.hidden_cka, losses.hidden_cosine, losses.hidden_pkd])
def test_gradients_of_padded_batches_are_finite(loss) -> None:
    states = t(MINE).requires_grad_()
    loss(states, t(THEIRS), t(MASK)).backward()
    assert bool(torch.isfinite(states.grad).all()) and float(states.grad.abs().sum()) > 0
    scores = torch.randn(3, 2, 4, 4, requires_grad=True)
    losses.attention_kl(scores, torch.randn(3, 2, 4, 4), t(MASK)).backward()
    assert (
        bool(torch.isfinite(scores.grad).all()) and float(scores.grad[1, :, :, 2:].abs().sum()) == 0
    )


def test_cka_stays_in_the_range_of_numbers_under_autocast_in_fp16() -> None:
    chance = torch.Generator().manual_seed(0)
    student = 30 * torch.randn(8, 50, 6, generator=chance)
    teacher = 30 * torch.randn(8, 50, 9, generator=chance)
    mask = torch.ones(8, 50)
    expected = losses.hidden_cka(student, teacher, mask)
    with torch.autocast("cpu", torch.float16):
        found = losses.hidden_cka(student, teacher, mask)
    torch.testing.assert_close(found, expected)
