"""Two tables: each subject's time against its lower bound, and its slowest operators."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from kdedge.benchmarks.figures import NOTHING
from kdedge.benchmarks.scenarios.machine_limit import OPERATOR
from kdedge.benchmarks.scenarios.series import ScenarioResults, Series
from kdedge.benchmarks.scenarios.tables import ScenarioTable
from kdedge.benchmarks.summary import duration

TOP = 5
"""Operators that the report names."""


def machine_tables(results: ScenarioResults, labels: Mapping[str, str]) -> list[ScenarioTable]:
    """Build both tables; [] if the scenario was not measured."""
    series = results.of("machine")
    by_subject: dict[str, list[Series]] = {}
    for each in series:
        by_subject.setdefault(each.subject, []).append(each)
    peaks = {each.part: each.median for each in by_subject.pop("", [])}
    if not by_subject:
        return []
    limits, operators = [], []
    for subject, parts in by_subject.items():
        label = labels.get(subject, subject)
        limits.append((label, *_limit_cells({each.part: each for each in parts})))
        operators.append((label, *_operator_cells(parts)))
    return [_limit_table(peaks, limits), _operator_table(operators)]


def multiples(time: Series, bound: Series) -> np.ndarray:
    """Return the time of each text as a multiple of its bound. *Shape:* (n,)"""
    return np.asarray(time.values / bound.values)


def operator_shares(parts: list[Series]) -> list[tuple[str, float]]:
    """Return each operator with its share of the time of all operators, the largest first.

    The time of an operator is its median over texts, because one interruption can be longer than
    all operators.
    """
    seconds = {}
    for each in parts:
        if each.part.startswith(OPERATOR):
            seconds[each.part.removeprefix(OPERATOR)] = each.median
    total = sum(seconds.values())
    shares = [(operator, spent / total) for operator, spent in seconds.items()]
    return sorted(shares, key=lambda entry: -entry[1])


def _limit_table(peaks: Mapping[str, float], rows: list[tuple[str, ...]]) -> ScenarioTable:
    return ScenarioTable(
        "machine",
        "How far from the machine",
        f"One core reaches {peaks['fp32'] / 1e9:,.0f} billion operations per second in fp32,"
        f" {peaks['int8'] / 1e9:,.0f} in int8, and copies memory at {peaks['memory'] / 1e9:.0f}"
        " GB/s. The bound is the time of a text's products at these peaks, or of reading the"
        " weights if that takes longer. Medians over texts, without tokenization.",
        ("subject", "fp32 operations", "int8 operations", "weights", "bound", "time", "multiple"),
        tuple(rows),
    )


def _limit_cells(parts: Mapping[str, Series]) -> tuple[str, ...]:
    counts = [f"{parts[name].median / 1e6:,.2f} M" for name in ("fp32", "int8")]
    multiple = float(np.median(multiples(parts["time"], parts["bound"])))
    return (
        *counts,
        f"{parts['bytes'].median / 1e6:,.2f} MB",
        duration(parts["bound"].median),
        duration(parts["time"].median),
        f"{multiple:.1f}x",
    )


def _operator_table(rows: list[tuple[str, ...]]) -> ScenarioTable:
    places = [f"{number}." for number in range(1, TOP + 1)]
    return ScenarioTable(
        "operators",
        "Operators that take the time",
        f"The {TOP} operators of ONNX Runtime with the largest share of the time of all operators.",
        ("subject", *places),
        tuple(rows),
    )


def _operator_cells(parts: list[Series]) -> tuple[str, ...]:
    cells = []
    for operator, share in operator_shares(parts)[:TOP]:
        cells.append(f"{operator} {100 * share:.0f} %")
    return (*cells, *[NOTHING] * (TOP - len(cells)))
