"""What the students of a run learned from: how many texts of which origin, what the filters rejected, what more of them was worth."""

from __future__ import annotations

from typing import Any

from kdedge.augment.counts import read_round_counts
from kdedge.run.layout import RunDir
from kdedge.run.stage import read_stage
from kdedge.transfer.dataset import transfer_hash


def learned_from(run: RunDir) -> dict[str, Any]:
    """origins: texts by origin. sources: see `SourceCounts`, by source. rejected: by the filters behind the teacher.

    curve: points, chosen and error of `kdedge augment --curve`, where it was measured on these texts. {} where the transfer set is gone.
    """
    if (
        not run.transfer.exists()
    ):  # removed, as a user may to save room: what was measured does not need it
        return {}
    result = read_stage(run.transfer)["result"]
    found: dict[str, Any] = {"origins": result["origins"]}
    if run.recipe.augment:
        found |= {
            "sources": read_round_counts(run.shared, run.recipe.augment.rounds),
            "rejected": result["rejected"],
        }
    if (run.folder / "curve").exists():
        measured = read_stage(run.folder / "curve")
        if measured["inputs"]["transfer"] == transfer_hash(run.transfer):
            found["curve"] = measured["result"]
    return found
