"""`kdedge bench TARGET...`: retention, latency, memory and size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kdedge.benchmarks.options import DEFAULTS, Options
from kdedge.benchmarks.scenarios.names import SCENARIOS, scenario_names
from kdedge.cli.bench_against import (
    check_same_data,
    check_same_subjects,
    read_earlier_report,
    with_comparison,
)
from kdedge.cli.bench_output import judge, show_report
from kdedge.cli.bench_remote import RemoteOptions, bench_remotely, remote_folder, remote_options
from kdedge.cli.console import ConsoleProgress
from kdedge.cli.invocation import command_line
from kdedge.cli.options import (
    DEFAULT_OUTPUT,
    FiniteRange,
    OutputOptions,
    default_option,
    json_option,
    load_data,
    option_group,
    strict_option,
    wide_option,
)
from kdedge.errors import UsageError
from kdedge.run.progress import Progress

if TYPE_CHECKING:
    from kdedge.benchmarks.against import EarlierReport
    from kdedge.benchmarks.examples import Examples
    from kdedge.benchmarks.report import Report
    from kdedge.benchmarks.targets import Plan
    from kdedge.run.layout import RunDir


MOST_THREADS = 1024
"""More threads than any machine has cores: they only take memory."""


@dataclass(frozen=True)
class DataArguments:
    """A file with the user's own texts, and its columns."""

    data: Path | None
    text: str
    pair: str
    label: str | None

    def read(self, bundle: Path) -> Examples | None:
        """Read the texts for a bundle; None if no file was given."""
        if self.data is None:
            return None
        from kdedge.benchmarks.examples import read_examples
        from kdedge.runtime import Bundle

        spec = Bundle.open(bundle).manifest.spec
        return read_examples(self.data, spec, text=self.text, pair=self.pair, label=self.label)

    def check(self) -> None:
        """Check that a column of labels belongs to a file."""
        if self.data is None and self.label is not None:
            raise UsageError("--label needs --data", self.label, "name a file with --data")

    def words(self) -> list[str]:
        """Return the options that name the columns."""
        if self.data is None:
            return []
        label = [] if self.label is None else [f"--label={self.label}"]
        return [f"--text={self.text}", f"--pair={self.pair}", *label]


class _WithCompare(click.Command):
    """A command whose first argument `compare` calls another one."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        if args[:1] != ["compare"]:
            return super().make_context(info_name, args, parent, **extra)
        from kdedge.cli.bench_compare import compare

        return compare.make_context(f"{info_name} compare", args[1:], parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        return super().invoke(ctx) if ctx.command is self else ctx.command.invoke(ctx)


@click.command(cls=_WithCompare)
@click.argument(
    "targets",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="TARGET...",
)
@option_group(
    "data",
    DataArguments,
    click.option(
        "--data",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        help="Bench only bundles, on the texts of a csv, tsv, jsonl, parquet or txt file.",
    ),
    click.option("--text", default="text", show_default=True, help="Column of the text in --data."),
    click.option(
        "--pair", default="pair", show_default=True, help="Column of the second text, for pairs."
    ),
    click.option("--label", help="Column of the label. Default: `label`, if it exists."),
)
@option_group(
    "options",
    Options,
    click.option(
        "--provider",
        "providers",
        multiple=True,
        callback=lambda ctx, option, names: tuple(dict.fromkeys(names)),
        default=DEFAULTS.providers,
        show_default=True,
        help="Execution provider of ONNX Runtime; repeatable. `all` tries every one that is"
        " installed.",
    ),
    default_option(
        "--threads",
        click.IntRange(1, MOST_THREADS),
        DEFAULTS.threads,
        "CPU threads for every model.",
    ),
    default_option(
        "--seconds",
        FiniteRange(0.1),
        DEFAULTS.seconds,
        "Total time for latency measurements.",
    ),
    click.option(
        "--repeats",
        type=click.IntRange(1),
        help="Single texts to time per model, instead of --seconds.",
    ),
    default_option("--batch", click.IntRange(1), DEFAULTS.batch, "Batch size for throughput."),
    click.option(
        "--scenario",
        "scenarios",
        multiple=True,
        callback=lambda ctx, option, names: scenario_names(names),
        default=DEFAULTS.scenarios,
        show_default=True,
        metavar="NAME,...",
        help=f"Scenarios to measure: {', '.join(SCENARIOS)}, or all. Most take about --seconds"
        " more; cold and gate also start several processes for each file.",
    ),
    click.option(
        "--rate",
        "rates",
        multiple=True,
        type=FiniteRange(0, min_open=True),
        help="Texts per second for the scenario load; repeatable. Default: shares of what each"
        " subject can answer.",
    ),
    default_option(
        "--target",
        FiniteRange(0, 2, min_open=True),
        DEFAULTS.target,
        "Share of the teacher's score that counts as retained.",
    ),
    click.option(
        "--teacher/--no-teacher",
        default=True,
        help="Time the teacher too; retention always uses its stored logits.",
    ),
    click.option(
        "--show-texts",
        is_flag=True,
        help="Show the 20 texts on which student and teacher differ the most. The report then"
        " holds these texts.",
    ),
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for report.html, report.md and report.json. Default: bench/ in the run, or"
    " bench/NAME for a bundle. Options that change what is measured become part of its name,"
    " such as bench-threads-4. A report of other settings is never replaced.",
)
@click.option(
    "--against",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The report.json of an earlier bench with --scenario gate. Exits with 1 if a subject is"
    " slower or scores worse now.",
)
@remote_options
@option_group("output", OutputOptions, wide_option, strict_option, json_option)
def bench(
    targets: tuple[Path, ...],
    data: DataArguments,
    options: Options,
    out: Path | None,
    against: Path | None,
    remote: RemoteOptions,
    output: OutputOptions,
) -> None:
    """Measure runs or bundles: retention, latency, throughput, memory, size.

    TARGET is a run (all its students), the folder of one student in a run, or one or more
    bundles. A bundle in its run is compared with its teacher and with baselines. A copied
    bundle, or one on a machine without torch, is measured alone: on --data, on the evaluation texts
    that travel with it, or on its golden texts.

    `kdedge bench compare` merges the reports of several machines into one page.

    \b
    Example: kdedge bench runs/quickstart
    Example: kdedge bench runs/quickstart --scenario load,cold
    Example: kdedge bench my-bundle --against main/report.json
    Example: kdedge bench my-bundle --data test.csv --text sentence --label class --json
    Example: kdedge bench my-bundle --remote pi@192.168.1.20
    """
    from kdedge.benchmarks.targets import plan

    progress = ConsoleProgress()
    remote.check()
    data.check()
    planned = plan(targets, alone=data.data is not None or remote.remote is not None)
    # Imported here so that a wrong target is reported sooner.
    from kdedge.benchmarks.output_folder import check_outside, check_writable, report_folder

    folder = out or report_folder(planned.out, options, data.data)
    check_writable(folder)
    if remote.remote is not None:
        folder = out or remote_folder(folder, remote.remote, compared=against is not None)
        words = [*options.words(), *data.words()]
        request = remote.request(planned.bundles, words, data.data, against)
        _check_before_copying(planned, data, options, folder)
        bench_remotely(remote, request, folder, output, progress)
    earlier = None
    if against is not None:
        options = replace(options, scenarios=scenario_names([*options.scenarios, "gate"]))
        folder = out or folder.with_name(f"{folder.name}-against")
        earlier = read_earlier_report(against, folder, options)
    command = command_line(click.get_current_context())
    if planned.run is not None:
        report, path = _bench_run(
            planned.run,
            planned.students,
            options,
            folder,
            progress,
            command=command,
            earlier=earlier,
        )
    else:
        check_outside(planned.bundles, folder)
        report, path = _bench_bundles(
            planned, data, options, folder, progress, command=command, earlier=earlier
        )
    show_report(report, path, output, progress=progress)
    judge(report, output)
    if report.comparison is not None:
        report.comparison.raise_if_regressed()


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
        report, path = _bench_run(run, students, DEFAULTS, run.bench, progress, command=command)
    show_report(report, path, output, progress=progress)
    judge(report, output)
    return report


def _bench_run(
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
    from kdedge.benchmarks.targets import require_bundle

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


def _bench_bundles(
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
    from kdedge.runtime import Bundle

    first = Bundle.open(planned.bundles[0])
    examples = data.read(planned.bundles[0]) or packed_examples(first)
    check_same_data(earlier, options, examples or golden_examples(first))
    names = [Bundle.open(bundle).manifest.name for bundle in planned.bundles]
    check_same_subjects(earlier, names)
    check_replaceable(folder, bundle_settings(planned.bundles, options, examples))
    report = bench_bundle(planned.bundles, options=options, examples=examples, progress=progress)
    report = replace(with_comparison(report, earlier), command=command)
    path = write_report(report, folder)
    if planned.why:
        progress.say(f"only the bundle is measured: {planned.why}")
    return report, path


def _check_before_copying(
    planned: Plan, data: DataArguments, options: Options, folder: Path
) -> None:
    """Report errors in texts, and a report that would be replaced, before anything is copied."""
    from kdedge.benchmarks.bench import bundle_settings
    from kdedge.benchmarks.examples import packed_examples
    from kdedge.benchmarks.output_folder import check_outside, check_replaceable
    from kdedge.runtime import Bundle

    check_outside(planned.bundles, folder)
    first = planned.bundles[0]
    examples = data.read(first) or packed_examples(Bundle.open(first))
    check_replaceable(folder, bundle_settings(planned.bundles, options, examples))
