"""The best weights of a training, kept while it goes on."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import nn

from kdedge.io.atomic import write_atomic


class BestCheckpoint:
    """The best weights so far and their score, on disk so that a resumed run has them too."""

    def __init__(self, folder: Path) -> None:
        self.note = folder / "best.json"
        self.folder = folder

    def offer(self, model: nn.Module, score: float, step: int) -> None:
        """Keep the weights if they are strictly better than those kept from another step."""
        kept = json.loads(self.note.read_text()) if self.note.exists() else None
        if kept is not None and score <= kept["score"]:
            return
        weights = {
            name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()
        }
        save_file(weights, self.folder / f"best-{step}.safetensors")
        write_atomic(self.note, json.dumps({"score": score, "step": step}))
        if kept is not None and kept["step"] != step:
            (self.folder / f"best-{kept['step']}.safetensors").unlink(missing_ok=True)

    def restore(self, model: nn.Module) -> float:
        """Put the best weights back into the model."""
        kept = json.loads(self.note.read_text())
        model.load_state_dict(load_file(self.folder / f"best-{kept['step']}.safetensors"))
        return float(kept["score"])

    def remove(self) -> None:
        self.note.unlink(missing_ok=True)
        for weights in self.folder.glob("best-*.safetensors"):
            weights.unlink()
