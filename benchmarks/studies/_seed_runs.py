"""Find the runs of all seeds of one recipe."""

from __future__ import annotations

import re
from pathlib import Path

from kdedge.run.layout import RunDir


def runs_of(name: str, runs: Path) -> list[RunDir]:
    """Return the run of that name, then those of its other seeds: NAME-seed1, NAME-seed2, ..."""
    folders = [runs / name]
    for path in sorted(runs.glob(f"{name}-seed*")):
        if re.fullmatch(rf"{re.escape(name)}-seed\d+", path.name):
            folders.append(path)
    return [RunDir.open(folder)[0] for folder in folders]
