"""Weights of the parts of the loss: fixed, ramped, balanced, and per example."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kdedge.distillation.objective import Objective
from kdedge.distillation.weighting import DECAY, Weighting, per_example_weight
from kdedge.nn import losses
from kdedge.nn.signals import Signals
from kdedge.recipe import ObjectiveConfig


def part(value: float) -> torch.Tensor:
    return torch.tensor(value, requires_grad=True)


def test_fixed_weights_equal_those_of_the_recipe() -> None:
    weighting = Weighting(ObjectiveConfig(labels_weight=0.25, hidden_weight=3.0), batches=10)
    for _ in range(3):
        found = weighting({"logits": part(5.0), "labels": part(1.0), "hidden": part(2.0)})
    assert {name: float(weight) for name, weight in found.items()} == {
        "logits": 1.0,
        "labels": 0.25,
        "hidden": 3.0,
    }


def test_a_ramp_runs_from_its_first_factor_to_its_last() -> None:
    weighting = Weighting(
        ObjectiveConfig(hidden_weight=2.0, ramp={"hidden": (1.0, 0.0), "logits": (0.0, 1.0)}),
        batches=5,
    )
    found = [weighting({"logits": part(1.0), "hidden": part(1.0)}) for _ in range(7)]
    assert [float(f["hidden"]) for f in found] == pytest.approx([2.0, 1.5, 1.0, 0.5, 0.0, 0.0, 0.0])
    assert [float(f["logits"]) for f in found] == pytest.approx(
        [0.0, 0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    )


def test_balanced_weights_divide_by_the_running_magnitude() -> None:
    weighting = Weighting(ObjectiveConfig(hidden_weight=0.5, balanced=True), batches=10)
    running = None
    for value in (100.0, 80.0, 10.0):
        running = value if running is None else DECAY * running + (1 - DECAY) * value
        assert float(weighting({"hidden": part(value)})["hidden"]) == pytest.approx(
            0.5 / running, rel=1e-5
        )
    weighting.eval()
    assert float(weighting({"hidden": part(7.0)})["hidden"]) == pytest.approx(
        0.5 / running, rel=1e-5
    ), "evaluation must not be counted"


def test_a_checkpoint_restores_ramps_and_magnitudes() -> None:
    recipe = ObjectiveConfig(hidden_weight=1.0, balanced=True, ramp={"hidden": (1.0, 0.0)})
    whole, interrupted = Weighting(recipe, 6), Weighting(recipe, 6)
    values = [3.0, 2.0, 5.0, 1.0, 4.0, 2.0]
    expected = [float(whole({"hidden": part(v)})["hidden"]) for v in values]
    for v in values[:3]:
        interrupted({"hidden": part(v)})
    resumed = Weighting(recipe, 6)
    resumed.load_state_dict(interrupted.state_dict())
    assert [float(resumed({"hidden": part(v)})["hidden"]) for v in values[3:]] == expected[3:]


def test_per_example_weight_is_the_probability_of_the_right_label() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.0, 0.0, 0.0], [5.0, 1.0, 1.0]])
    found = per_example_weight(logits, torch.tensor([0, 2, -1]), "classification")
    assert found.tolist() == pytest.approx([float(logits[0].softmax(-1)[0]), 1 / 3, 1.0], rel=1e-5)
    teacher, labels = torch.tensor([[1.0], [4.0], [2.0]]), torch.tensor([1.5, float("nan"), 1.0])
    numbers = per_example_weight(teacher, labels, "regression")
    assert numbers.tolist() == pytest.approx(
        [np.exp(-0.25 / 0.625), 1.0, np.exp(-1 / 0.625)], rel=1e-5
    )
    assert per_example_weight(100 * teacher, 100 * labels, "regression").tolist() == pytest.approx(
        numbers.tolist(), rel=1e-4
    ), "the scale of the numbers does not matter"
    assert per_example_weight(teacher[:1], teacher[:1, 0], "regression").tolist() == [1.0], (
        "the student follows a teacher that is right"
    )


def test_per_example_loss_divides_each_text_between_teacher_and_label() -> None:
    torch.manual_seed(0)
    student, teacher, labels = torch.randn(4, 3), torch.randn(4, 3), torch.tensor([0, 1, 2, -1])
    recipe = ObjectiveConfig(logits="kl", temperature=2.0, labels_weight=0.5, per_example=True)
    total, parts = Objective(recipe, "classification", None, None)(
        Signals(student), Signals(teacher), labels, torch.ones(4, 5)
    )
    logits = labelled = 0.0
    for i in range(4):
        weight = float(teacher[i].softmax(-1)[labels[i]]) if labels[i] >= 0 else 1.0
        row = slice(i, i + 1)
        logits += weight * float(losses.soft_cross_entropy_kl(student[row], teacher[row], 2.0)) / 4
        labelled += (1 - weight) * -float(student[i].log_softmax(-1)[labels[i]]) / 3
    assert float(parts["logits"]) == pytest.approx(logits, rel=1e-4)
    assert float(parts["labels"]) == pytest.approx(labelled, rel=1e-4)
    assert float(total) == pytest.approx(logits + 0.5 * labelled, rel=1e-4)
