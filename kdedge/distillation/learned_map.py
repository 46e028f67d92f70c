"""A layer map that is learned together with the student."""

from __future__ import annotations

import torch
from torch import nn

SHARPNESS = 100.0
"""Adam moves a parameter by about the learning rate per step. Without this factor the softmax
would hardly change at a rate of 1e-4."""


class LearnedMap(nn.Module):
    """For each of S student layers, a softmax over T teacher layers that weighs their losses.

    It starts even and moves to the teacher layers that are easiest to match. These are not
    necessarily the layers that help the student most: compare it with `uniform`.
    """

    def __init__(self, student_layers: int, teacher_layers: int) -> None:
        super().__init__()
        self.choice = nn.Parameter(torch.zeros(student_layers, teacher_layers))

    def forward(self) -> torch.Tensor:
        """Return the shares (S, T); each row adds up to 1."""
        return (SHARPNESS * self.choice).softmax(-1)

    def table(self) -> list[list[float]]:
        """Return the present shares as S rows of T numbers."""
        table: list[list[float]] = []
        for row in self.forward().detach().float().cpu().tolist():
            table.append([round(share, 4) for share in row])
        return table
