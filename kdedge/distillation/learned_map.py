"""A layer map that is found while the student learns."""

from __future__ import annotations

import torch
from torch import nn

SPEED = 100.0
"""Adam moves a number by about the learning rate a step, whatever its gradient: at 1e-4 a softmax would never decide."""


class LearnedMap(nn.Module):
    """For each of S student layers a softmax over the T teacher layers: how much of its loss each of them makes up.

    It starts even and follows the loss, so it ends at the teacher layers that are easiest to match, which need not
    be those that teach most: compare it with `uniform` before you trust it.
    """

    def __init__(self, student: int, teacher: int) -> None:
        super().__init__()
        self.choice = nn.Parameter(torch.zeros(student, teacher))

    def forward(self) -> torch.Tensor:
        """(S, T), every row adding up to 1."""
        return (SPEED * self.choice).softmax(-1)

    def table(self) -> list[list[float]]:
        """The shares as they stand: S rows of T numbers."""
        rows: list[list[float]] = self.forward().detach().float().cpu().tolist()
        return [[round(share, 4) for share in row] for row in rows]
