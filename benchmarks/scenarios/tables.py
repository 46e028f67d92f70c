"""Tables of scenarios: statistics of the raw values, as text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kdedge.benchmarks.figures import NOTHING
from kdedge.benchmarks.scenarios.mlperf import (
    bounded_percentile,
    queries_without_early_stopping,
)
from kdedge.benchmarks.scenarios.series import ScenarioResults, Series
from kdedge.benchmarks.summary import duration


@dataclass(frozen=True)
class ScenarioTable:
    """One table.

    Attributes:
        name: The scenario, which is part of ids.
        title: Heading.
        explain: Sentences that explain the values.
        header: Columns; the first one names the subject.
        rows: Cells.
    """

    name: str
    title: str
    explain: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def scenario_tables(results: ScenarioResults, labels: Mapping[str, str]) -> list[ScenarioTable]:
    """Build a table for each scenario that has values.

    Args:
        results: What was measured.
        labels: `Subject.key` -> the subject's name in tables.
    """
    tables = []
    for name, build in BUILDERS.items():
        series = results.of(name)
        if series:
            tables.append(build(series, labels))
    return tables


def _stream(series: list[Series], labels: Mapping[str, str]) -> ScenarioTable:
    plain = f"{queries_without_early_stopping(0.99):,}"
    rows = []
    for each in series:
        percentiles = [duration(each.quantile(q)) for q in (0.5, 0.9, 0.99)]
        bounds = [_bound(each, q) for q in (0.9, 0.99)]
        rows.append((_label(each, labels), f"{len(each.values):,}", *percentiles, *bounds))
    return ScenarioTable(
        "stream",
        "Single stream",
        "One text after another, with tokenization. A bound is MLPerf's early-stopping estimate:"
        " with a confidence of 99 % the percentile is not above it. MLPerf's rule without early"
        f" stopping needs {plain} queries for p99.",
        ("subject", "queries", "p50", "p90", "p99", "bound of p90", "bound of p99"),
        tuple(rows),
    )


def _bound(series: Series, percentile: float) -> str:
    bound = bounded_percentile(series.values, percentile)
    return NOTHING if bound is None else duration(bound)


def _offline(series: list[Series], labels: Mapping[str, str]) -> ScenarioTable:
    header, rows = _grid(series, labels, _texts_per_second, "batch of {:g}")
    return ScenarioTable(
        "offline",
        "Offline",
        "Texts per second in batches, with tokenization: the median over batches in file order,"
        " padded to the longest text of each.",
        header,
        rows,
    )


def _texts_per_second(series: Series) -> str:
    assert series.at is not None
    return f"{series.at / series.median:,.0f}"


def _load(series: list[Series], labels: Mapping[str, str]) -> ScenarioTable:
    services = {}
    for each in series:
        if each.part == "service":
            services[each.subject, each.at] = each
    rows = []
    for each in series:
        if each.part != "latency" or each.at is None:
            continue
        service = services[each.subject, each.at]
        busy = each.at * float(service.values.mean())
        percentiles = [duration(each.quantile(q)) for q in (0.5, 0.9, 0.99)]
        rate = f"{each.at:,.0f}" if each.at >= 1000 else f"{each.at:.4g}"
        rows.append((_label(each, labels), rate, f"{100 * busy:.0f} %", *percentiles))
    return ScenarioTable(
        "load",
        "Offered load",
        "Requests arrive at random (Poisson) at a fixed rate, whether or not earlier ones are"
        " answered; one worker answers them in turn. Latency counts from the scheduled arrival, so"
        " it includes waiting. Load is the rate times the mean time of an answer: above 100 % the"
        " queue only grows.",
        ("subject", "texts/s", "load", "p50", "p90", "p99"),
        tuple(rows),
    )


def _cold(series: list[Series], labels: Mapping[str, str]) -> ScenarioTable:
    header, rows = _grid(series, labels, lambda each: duration(each.median), "{}", by_part=True)
    starts = len(series[0].values)
    return ScenarioTable(
        "cold",
        "Cold start",
        f"A new process, median of {starts} starts: interpreter and imports; files to a model; the"
        " first text; all three.",
        header,
        rows,
    )


def _threads(series: list[Series], labels: Mapping[str, str]) -> ScenarioTable:
    header, rows = _grid(series, labels, lambda each: duration(each.median), "threads: {:g}")
    return ScenarioTable(
        "threads", "Threads", "Median time of one text, with tokenization.", header, rows
    )


def _lengths(series: list[Series], labels: Mapping[str, str]) -> ScenarioTable:
    header, rows = _grid(series, labels, lambda each: duration(each.median), "{:g} tokens")
    return ScenarioTable(
        "lengths",
        "Length",
        "Median time of one text, with tokenization. The texts are cut from those of the bench; a"
        " length is the median number of tokens.",
        header,
        rows,
    )


def _energy(series: list[Series], labels: Mapping[str, str]) -> ScenarioTable:
    header, rows = _grid(
        series, labels, lambda each: f"{1e3 * each.median:.3g} mJ", "{}", by_part=True
    )
    return ScenarioTable(
        "energy",
        "Energy",
        "Median energy of one text, with what the processor or GPU needs when idle.",
        header,
        rows,
    )


BUILDERS: dict[str, Callable[[list[Series], Mapping[str, str]], ScenarioTable]] = {
    "stream": _stream,
    "offline": _offline,
    "load": _load,
    "cold": _cold,
    "threads": _threads,
    "lengths": _lengths,
    "energy": _energy,
}


def _grid(
    series: list[Series],
    labels: Mapping[str, str],
    cell: Callable[[Series], str],
    column: str,
    *,
    by_part: bool = False,
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Return header and rows: a row for each subject, a column for each condition."""
    cells: dict[str, dict[float | str, str]] = {}
    conditions: dict[float | str, None] = {}
    for each in series:
        condition: float | str = each.part
        if not by_part and each.at is not None:
            condition = each.at
        conditions[condition] = None
        cells.setdefault(_label(each, labels), {})[condition] = cell(each)
    columns = list(conditions)
    if not by_part:
        columns.sort(key=float)
    rows = []
    for label, values in cells.items():
        rows.append((label, *[values.get(condition, NOTHING) for condition in columns]))
    header = ("subject", *[column.format(condition) for condition in columns])
    return header, tuple(rows)


def _label(series: Series, labels: Mapping[str, str]) -> str:
    return labels.get(series.subject, series.subject)
