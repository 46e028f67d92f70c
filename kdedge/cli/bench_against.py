"""`kdedge bench SOURCE --against old.json`: check that two benches can be compared, and compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kdedge.benchmarks.options import Options
from kdedge.errors import UsageError

if TYPE_CHECKING:
    from kdedge.benchmarks.against import EarlierReport
    from kdedge.benchmarks.examples import Examples
    from kdedge.benchmarks.report import Report


def read_earlier_report(path: Path, folder: Path, options: Options) -> EarlierReport:
    """Read the earlier report and check that this machine measures under the same conditions."""
    from kdedge.benchmarks.against import read_earlier

    earlier = read_earlier(path)
    if path.resolve() == (folder / "report.json").resolve():
        raise UsageError(
            "the new report would replace the one that it is compared with",
            str(path),
            "name another folder with --out",
        )
    _check_conditions(earlier, options)
    return earlier


def check_same_data(earlier: EarlierReport | None, options: Options, examples: Examples) -> None:
    """Check that an earlier bench, if there is one, measured the same texts."""
    if earlier is not None:
        _check_conditions(earlier, options, examples.digest())


def check_same_subjects(earlier: EarlierReport | None, names: Sequence[str]) -> None:
    """Check that an earlier bench, if there is one, measured one of these students or bundles."""
    if earlier is None:
        return
    known = sorted({each.subject for each in earlier.scenarios.of("gate")})
    if not any(subject.startswith(f"{name} ") for subject in known for name in names):
        raise UsageError(
            "the two benches have no subject in common",
            f"there: {', '.join(known)}; here: {', '.join(names)}",
            "name the report of the same bundle",
        )


def _check_conditions(earlier: EarlierReport, options: Options, digest: str | None = None) -> None:
    """Check machine and versions before a bench; `digest` None does not compare texts."""
    from kdedge import __version__
    from kdedge.benchmarks import machine
    from kdedge.benchmarks.against import check_same_conditions

    # The GPU is compared after the bench: its name is not known before torch is imported.
    described = {**machine.describe(options.threads), "gpu": earlier.conditions["gpu"]}
    check_same_conditions(earlier, described, __version__, digest)


def with_comparison(report: Report, earlier: EarlierReport | None) -> Report:
    """Compare a report with an earlier one, if there is one."""
    if earlier is None:
        return report
    from kdedge.benchmarks.against import compare

    return replace(report, comparison=compare(report, earlier))
