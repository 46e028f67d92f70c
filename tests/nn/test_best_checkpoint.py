"""The best weights of a training: the highest score, and the latest of equal ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from kdedge.nn.best_checkpoint import BestCheckpoint, remove_best


@pytest.mark.parametrize(
    "scores, chosen",
    [([0.5, 0.9, 0.7], 2), ([0.9, 0.5, 0.9, 0.7], 3), ([0.5, 0.5, 0.5], 3), ([0.1], 1)],
)
def test_the_last_of_the_best_scores_counts(
    tmp_path: Path, scores: list[float], chosen: int
) -> None:
    model = nn.Linear(1, 1)
    for step, score in enumerate(scores, 1):
        nn.init.constant_(model.weight, step)
        BestCheckpoint(tmp_path).update(model, score, step)
    assert BestCheckpoint(tmp_path).restore(model) == max(scores)
    assert torch.equal(model.weight.detach(), torch.tensor([[float(chosen)]]))
    assert [path.name for path in tmp_path.glob("*.safetensors")] == [f"best-{chosen}.safetensors"]
    remove_best(tmp_path)
    assert not list(tmp_path.iterdir())
