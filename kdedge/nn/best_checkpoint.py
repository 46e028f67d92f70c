"""The best weights of a training on disk: so far, and then until its stage is finished."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import nn

from kdedge.io.atomic import write_atomic

BEST_FILES = "best*"
"""Pattern of the names of the record and the weights."""


class BestCheckpoint:
    """The best weights so far and their score; a resumed training finds them again.

    At the end of the training they are marked as final. They stay, because the model must still be
    measured and saved: `remove_best` removes them afterwards.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.record = folder / "best.json"

    def update(self, model: nn.Module, score: float, step: int) -> None:
        """Save the weights unless an earlier score is better.

        Of equal scores the latest wins: a small validation split gives many equal scores, and
        later weights have trained longer with a lower learning rate.
        """
        best = self._best() if self.record.exists() else None
        if best is not None and score < best["score"]:
            return
        weights = {}
        for name, value in model.state_dict().items():
            weights[name] = value.detach().cpu().contiguous()
        save_file(weights, self._weights(step))
        write_atomic(self.record, json.dumps({"score": score, "step": step}))
        if best is not None and best["step"] != step:
            self._weights(best["step"]).unlink(missing_ok=True)

    def restore(self, model: nn.Module) -> float:
        """Load the best weights into the model and return their score."""
        best = self._best()
        model.load_state_dict(load_file(self._weights(best["step"])))
        return float(best["score"])

    @property
    def is_final(self) -> bool:
        """Whether the training is finished."""
        return self.record.exists() and bool(self._best().get("final"))

    def mark_final(self) -> None:
        """Record that the training is finished."""
        write_atomic(self.record, json.dumps(self._best() | {"final": True}))

    def _best(self) -> dict[str, Any]:
        return dict(json.loads(self.record.read_text()))

    def _weights(self, step: int) -> Path:
        return self.folder / f"best-{step}.safetensors"


def remove_best(folder: Path) -> None:
    """Remove the best weights of a training, and their record, if they are there."""
    for file in folder.glob(BEST_FILES):
        file.unlink()
