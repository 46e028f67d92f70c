"""Describe what the students of a run learned from: texts by origin, rejections, learning curve."""

from __future__ import annotations

import json
from typing import Any

from kdedge.augment.counts import read_source_counts
from kdedge.run.layout import RunDir
from kdedge.run.stage import read_result, read_stage
from kdedge.transfer.dataset import transfer_hash
from kdedge.transfer.result import TransferResult


def learned_from(run: RunDir) -> dict[str, Any]:
    """Describe the transfer set of a run; {} if the user has deleted it.

    Returns:
        `origins`: texts by origin. For a recipe with `[augment]` also `sources`: counts by source,
        and `rejected`: texts that the teacher's filters rejected. If `kdedge augment --curve` was
        measured on these texts, `curve`: its result. `device`: what the last `kdedge distill`
        computed on, if run.json has it.
    """
    if not run.transfer.exists():
        return {}
    result = read_result(run.transfer, TransferResult)
    document: dict[str, Any] = {"origins": result.origins}
    if run.recipe.augment_in_use:
        sources = read_source_counts(run.augment)
        document["sources"] = {name: counts.to_json() for name, counts in sources.items()}
        document["rejected"] = result.rejected
    if run.curve.exists():
        curve = read_stage(run.curve)
        if curve.inputs["transfer"] == transfer_hash(run.transfer):
            document["curve"] = curve.result
    if device := trained_on(run):
        document["device"] = device
    return document


def trained_on(run: RunDir) -> str | None:
    """Return the description of the device that run.json holds."""
    device = json.loads(run.metadata_file.read_text(encoding="utf-8")).get("device")
    return device if isinstance(device, str) else None
