"""A stage that trains a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from kdedge.nn.best_checkpoint import BEST_FILES, remove_best
from kdedge.run.processes import on_main_process
from kdedge.run.stage import StageContext, stage


def training_stage(
    folder: Path,
    inputs: dict[str, Any],
    make: Callable[[Path], dict[str, Any]],
    stages: StageContext,
) -> dict[str, Any]:
    """Make a stage that trains a model, or reuse it; arguments and errors are those of `stage`.

    The best weights stay until the stage is finished. A stop while the trained model is measured
    or saved then does not repeat the training.
    """
    result = stage(folder, inputs, make, stages=stages, temporary=BEST_FILES)
    on_main_process(lambda: remove_best(folder))
    return result
