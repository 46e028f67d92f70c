"""Compare a bench with an earlier one: `kdedge bench SOURCE --against old.json`.

Both must have measured the same texts on the same machine with the same versions, and both need
the scenario `gate`, which times a subject in several processes. The ratio of its times has an
interval from the rank-sum test over processes (Hodges and Lehmann 1963), which makes no assumption
about the noise. Differences below `process_ratio.RELEVANT` are not reported.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from kdedge.benchmarks.changes import Change, Comparison
from kdedge.benchmarks.equivalence.flips import flips_of
from kdedge.benchmarks.report import Report
from kdedge.benchmarks.report_json import finite, wrong_form
from kdedge.benchmarks.scenarios.process_ratio import CONFIDENCE, compare_processes, verdict_of
from kdedge.benchmarks.scenarios.series import ScenarioResults, Series, subject_key

from kdedge.errors import UsageError

KEY_COLUMNS = ("subject", "form", "precision", "provider")
MACHINE_KEYS = ("cpu", "architecture", "cores", "flags", "os", "gpu")


@dataclass(frozen=True)
class EarlierReport:
    """The parts of an earlier report.json that a comparison needs."""

    path: Path
    created: str
    conditions: Mapping[str, Any]
    digest: str
    scenarios: ScenarioResults
    scores: Mapping[str, tuple[float, float | None]]


def read_earlier(path: Path) -> EarlierReport:
    """Read an earlier report.json.

    Raises:
        UsageError: If it is not a report, or has no values to compare.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _not_earlier(path, error.strerror or "it cannot be read") from error
    except ValueError as error:
        raise _not_earlier(path, f"it is not JSON: {error}") from error
    try:
        earlier = EarlierReport(
            path,
            document["created"],
            conditions_of(document["machine"], document["kdedge"]),
            document["task"]["digest"],
            ScenarioResults.from_json(document["scenarios"]),
            _scores(document["rows"]),
        )
        _check_values(earlier.scenarios)
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
        raise _not_earlier(path, wrong_form(error)) from error
    if not earlier.scenarios.of("gate"):
        raise UsageError(
            "the earlier report has no values to compare",
            f"{path} was made without the scenario gate",
            "make it again with --scenario gate",
        )
    return earlier


def _check_values(scenarios: ScenarioResults) -> None:
    """Raise ValueError or KeyError if the values of the scenario gate are damaged.

    A subject that can be compared with itself can be compared with another bench.
    """
    for series in _by_subject(scenarios).values():
        timed = _timed(series)
        for each in timed:
            is_time = each.unit == "s" and bool(np.all(np.isfinite(each.values)))
            if not is_time or not np.all(each.values > 0):
                raise ValueError("a time is not a positive number")
        compare_processes(timed, timed)


def _not_earlier(path: Path, reason: str) -> UsageError:
    return UsageError(
        "--against needs the report.json of an earlier bench",
        f"{path}: {reason}"[:300],
        "name the report.json that `kdedge bench SOURCE --scenario gate` wrote",
    )


def conditions_of(machine: Mapping[str, Any], version: str) -> dict[str, Any]:
    """Return the machine, threads and versions that two benches must share, by name."""
    conditions = {key: machine.get(key) for key in MACHINE_KEYS}
    packages = {f"version of {name}": number for name, number in machine["packages"].items()}
    versions = {"version of kdedge": version, "version of python": machine["python"]}
    both = {**conditions, "threads": machine["threads"], **versions, **packages}
    return {name: finite(value) for name, value in both.items()}


def check_same_conditions(
    earlier: EarlierReport, machine: Mapping[str, Any], version: str, digest: str | None = None
) -> None:
    """Check that a new bench measures the same as an earlier one.

    Args:
        earlier: The earlier report.
        machine: `machine.describe` of the new bench.
        version: Its version of kdedge.
        digest: `Examples.digest` of its texts; None does not compare them.

    Raises:
        UsageError: If they differ; it names all differences.
    """
    now = conditions_of(machine, version)
    lines = []
    for name in sorted({*earlier.conditions, *now}):
        before, after = earlier.conditions.get(name), now.get(name)
        if before != after:
            lines.append(f"{name}: {_shown(before)} there, {_shown(after)} here")
    if digest is not None and digest != earlier.digest:
        lines.append(f"texts and labels: {earlier.digest[:12]}… there, {digest[:12]}… here")
    if lines:
        raise UsageError(
            "two benches can be compared only if machine, threads, versions and data agree",
            "\n".join(lines),
            f"make {earlier.path} again under the conditions of this bench",
        )


def compare(report: Report, earlier: EarlierReport) -> Comparison:
    """Compare every subject that both benches have.

    Raises:
        UsageError: If they have no subject in common, or measured under other conditions.
    """
    check_same_conditions(earlier, report.machine, report.kdedge, report.task["digest"])
    old, new = _by_subject(earlier.scenarios), _by_subject(report.scenarios)
    both = [subject for subject in new if subject in old]
    if not both:
        raise UsageError(
            "the two benches have no subject in common",
            f"there: {', '.join(old)}; here: {', '.join(new) or 'none'}",
            "name the report of the same bundle",
        )
    scores = {}
    for row in report.rows:
        if row.value is not None:
            scores[row.key] = row.value
    changes = []
    for subject in both:
        changes.append(_change(subject, old[subject], new[subject], earlier, scores))
    only_old = tuple(subject for subject in old if subject not in new)
    only_new = tuple(subject for subject in new if subject not in old)
    measured = {row.key for row in report.rows}
    not_timed = tuple(subject for subject in only_old if subject in measured)
    return Comparison(earlier.created, tuple(changes), only_old, only_new, not_timed)


def _change(
    subject: str,
    old: Sequence[Series],
    new: Sequence[Series],
    earlier: EarlierReport,
    scores: Mapping[str, float],
) -> Change:
    ratio, low, high, machine = compare_processes(_timed(old), _timed(new))
    change = Change(subject, ratio, low, high, verdict_of(low, high), machine)
    if subject not in scores or subject not in earlier.scores:
        return change
    before, lowest = earlier.scores[subject]
    after = scores[subject]
    verdict = _score_verdict(_right(old), _right(new), before, after, lowest)
    return replace(change, old_score=before, new_score=after, score_verdict=verdict)


def _score_verdict(
    old: np.ndarray | None,
    new: np.ndarray | None,
    before: float,
    after: float,
    lowest: float | None,
) -> str:
    """Compare two scores text by text; if that is not possible, by the old score's interval."""
    if old is not None and new is not None and len(old) == len(new):
        differs = flips_of(new == 1, old == 1).p < 1 - CONFIDENCE
        lost = new.sum() < old.sum()
    else:
        lost = after < before
        differs = lost and lowest is not None and after < lowest
    if not differs:
        return "no difference"
    return "worse" if lost else "better"


def _by_subject(results: ScenarioResults) -> dict[str, list[Series]]:
    """Return the series of the scenario `gate` by subject, for subjects that were timed."""
    found: dict[str, list[Series]] = {}
    for each in results.of("gate"):
        found.setdefault(each.subject, []).append(each)
    return {subject: series for subject, series in found.items() if _timed(series)}


def _timed(series: Sequence[Series]) -> list[Series]:
    return [each for each in series if each.part in ("text", "yardstick")]


def _right(series: Sequence[Series]) -> np.ndarray | None:
    for each in series:
        if each.part == "right":
            return each.values
    return None


def _scores(rows: Sequence[Mapping[str, Any]]) -> dict[str, tuple[float, float | None]]:
    """Return score and lower end of its interval, by `Subject.key`."""
    scores = {}
    for row in rows:
        if row["value"] is not None:
            key = subject_key(*[row[name] for name in KEY_COLUMNS])
            low = row["value_low"]
            scores[key] = float(row["value"]), None if low is None else float(low)
    return scores


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
