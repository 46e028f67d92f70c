"""Bench a run or bundles for `kdedge bench` and `kdedge run`, and write the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kdedge.benchmarks.options import DEFAULTS, Options
from kdedge.cli.bench_against import check_same_data, check_same_subjects, with_comparison
from kdedge.cli.bench_data import DataArguments
from kdedge.cli.bench_output import judge, show_report
from kdedge.cli.invocation import command_line
from kdedge.cli.options import DEFAULT_OUTPUT, OutputOptions, load_data
from kdedge.run.progress import Progress

if TYPE_CHECKING:
    from kdedge.benchmarks.against import EarlierReport
    from kdedge.benchmarks.report import Report
    from kdedge.benchmarks.sources import Plan
    from kdedge.run.layout import RunDir


def bench_and_show(
    folder: Path,
    output: OutputOptions = DEFAULT_OUTPUT,
    *,
    progress: Progress,
    force: bool,
) -> Report:
    """Bench a whole run with default options, write its report and print it.

    Without `force`, a report of the same bundles, settings and machine is printed again.
    """
    from kdedge.benchmarks.bench import run_settings
    from kdedge.benchmarks.saved import measured_from, saved_report
    from kdedge.run.layout import RunDir

    run, students = RunDir.open(folder)
    path = run.bench / "report.json"
    report: Report | None = None
    if not force:
        settings = run_settings(run, students, DEFAULTS)
        report = saved_report(run.bench, settings, measured_from(run, students), DEFAULTS)
    if report is not None:
        progress.say(f"{run.bench.name}: same bundles, settings and machine, kept")
    else:
        context = click.get_current_context(silent=True)
        command = command_line(context) if context is not None else None
        report, path = measure_run(run, students, DEFAULTS, run.bench, progress, command=command)
    show_report(report, path, output, progress=progress)
    judge(report, output)
    return report


def measure_run(
    run: RunDir,
    students: Sequence[str],
    options: Options,
    folder: Path,
    progress: Progress,
    *,
    command: str | None,
    earlier: EarlierReport | None = None,
) -> tuple[Report, Path]:
    """Check data and bundles, bench students of a run, and write the report.

    `command` replaces the report's own command if it is given.
    """
    from kdedge.benchmarks.sources import require_bundle

    for name in students:
        require_bundle(run.students[name].bundle)
    task = load_data(run.recipe, progress)
    # Imported here so that errors in the run and its data are reported sooner.
    from kdedge.benchmarks.bench import bench_run, run_examples, run_settings
    from kdedge.benchmarks.output_folder import check_replaceable
    from kdedge.benchmarks.render import write_report
    from kdedge.run.threads import silence_transformers

    silence_transformers()
    check_same_data(earlier, options, run_examples(task))
    check_same_subjects(earlier, students)
    with run.locked():
        check_replaceable(folder, run_settings(run, students, options))
        report = bench_run(run, students, options=options, task=task, progress=progress)
        report = replace(with_comparison(report, earlier), command=command or report.command)
        return report, write_report(report, folder)


def measure_bundles(
    planned: Plan,
    data: DataArguments,
    options: Options,
    folder: Path,
    progress: Progress,
    *,
    command: str,
    earlier: EarlierReport | None = None,
) -> tuple[Report, Path]:
    """Bench bundles without their run and write the report."""
    from kdedge.benchmarks.bench import bench_bundle, bundle_settings, golden_examples
    from kdedge.benchmarks.examples import packed_examples
    from kdedge.benchmarks.output_folder import check_replaceable
    from kdedge.benchmarks.render import write_report
    from kdedge.benchmarks.sources import subject_names
    from kdedge.runtime import Bundle

    bundles = [Bundle.open(bundle) for bundle in planned.bundles]
    examples = data.read(bundles[0]) or packed_examples(bundles[0])
    check_same_data(earlier, options, examples or golden_examples(bundles[0]))
    check_same_subjects(earlier, subject_names(bundles))
    check_replaceable(folder, bundle_settings(bundles, options, examples))
    report = bench_bundle(planned.bundles, options=options, examples=examples, progress=progress)
    report = replace(with_comparison(report, earlier), command=command)
    path = write_report(report, folder)
    if planned.why:
        progress.say(f"only the bundle is measured: {planned.why}")
    return report, path


def check_before_copying(
    planned: Plan, data: DataArguments, options: Options, folder: Path
) -> None:
    """Report errors in texts, and a report that would be replaced, before anything is copied."""
    from kdedge.benchmarks.bench import bundle_settings
    from kdedge.benchmarks.examples import packed_examples
    from kdedge.benchmarks.output_folder import check_outside, check_replaceable
    from kdedge.runtime import Bundle

    check_outside(folder)
    bundles = [Bundle.open(bundle) for bundle in planned.bundles]
    examples = data.read(bundles[0]) or packed_examples(bundles[0])
    check_replaceable(folder, bundle_settings(bundles, options, examples))
