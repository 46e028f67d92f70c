"""The results of benchmarks/studies/gpu.py as a section of a report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kdedge.benchmarks.figures import FigureSection, FigureTable

HEADING = "On a GPU"
EXPLANATION = "What benchmarks/studies/gpu.py measured with random texts. The GPU: {}."
NOT_MEASURED = "Not measured: no GPU was to be had. benchmarks/studies/gpu.py measures it."


def gpu_section(path: Path | None) -> FigureSection:
    """Show every figure of a results file, and the steps that failed.

    Raises:
        KeyError: If the file is not one of that study.
    """
    if path is None:
        return FigureSection("gpu", HEADING, NOT_MEASURED)
    steps = json.loads(path.read_text(encoding="utf-8"))["steps"]
    rows: list[tuple[str, str, str]] = []
    problems = []
    for name, outcome in steps.items():
        if "error" in outcome:
            problems.append(f"{name} failed: {outcome['error']}")
        elif name != "environment":
            rows += [(name, *figure) for figure in figures(outcome.get("result", {}))]
    device = steps.get("environment", {}).get("result", {}).get("device", "unknown")
    table = FigureTable(("step", "figure", "value"), tuple(rows), words=(0, 1))
    explanation = EXPLANATION.format(device)
    return FigureSection("gpu", HEADING, explanation, table, tuple(problems))


def figures(result: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the name and the value of each figure; an inner table has one for each of its keys."""
    for name, value in result.items():
        if isinstance(value, dict):
            for key, inner in value.items():
                yield f"{name}: {key}", shown(inner)
        else:
            yield name, shown(value)


def shown(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
