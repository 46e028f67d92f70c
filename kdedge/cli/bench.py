"""`kdedge bench SOURCE...`: retention, latency, memory and size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from kdedge.benchmarks.options import DEFAULTS, LARGEST_TARGET, MOST_THREADS, Options
from kdedge.benchmarks.scenarios.names import SCENARIOS, scenario_names
from kdedge.cli.bench_against import read_earlier_report
from kdedge.cli.bench_data import DataArguments
from kdedge.cli.bench_measure import check_before_copying, measure_bundles, measure_run
from kdedge.cli.bench_output import judge, show_report
from kdedge.cli.bench_remote import RemoteOptions, bench_remotely, remote_folder, remote_options
from kdedge.cli.console import ConsoleProgress
from kdedge.cli.invocation import command_line
from kdedge.cli.options import (
    FiniteRange,
    OutputOptions,
    default_option,
    json_option,
    option_group,
    strict_option,
    wide_option,
)


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
    "sources",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="SOURCE...",
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
        help="Single texts to time per model; --seconds then holds for batches alone.",
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
        FiniteRange(0, LARGEST_TARGET, min_open=True),
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
    " such as bench-threads-4. A report of other settings or bundles is never replaced.",
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
    sources: tuple[Path, ...],
    data: DataArguments,
    options: Options,
    out: Path | None,
    against: Path | None,
    remote: RemoteOptions,
    output: OutputOptions,
) -> None:
    """Measure runs or bundles: retention, latency, throughput, memory, size.

    SOURCE is a run (all its students), the folder of one student in a run, or one or more
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
    from kdedge.benchmarks.sources import plan

    progress = ConsoleProgress()
    remote.check()
    data.check()
    planned = plan(sources, alone=data.data is not None or remote.remote is not None)
    # Imported here so that a wrong source is reported sooner.
    from kdedge.benchmarks.output_folder import check_outside, check_writable, report_folder

    folder = out or report_folder(planned.out, options, data.data)
    check_writable(folder)
    if remote.remote is not None:
        folder = out or remote_folder(folder, remote.remote, compared=against is not None)
        words = [*options.words(), *data.words()]
        request = remote.request(planned.bundles, words, data.data, against)
        check_before_copying(planned, data, options, folder)
        bench_remotely(remote, request, folder, output, progress)
    earlier = None
    if against is not None:
        options = replace(options, scenarios=scenario_names([*options.scenarios, "gate"]))
        folder = out or folder.with_name(f"{folder.name}-against")
        earlier = read_earlier_report(against, folder, options)
    check_outside(folder)
    command = command_line(click.get_current_context())
    if planned.run is not None:
        report, path = measure_run(
            planned.run,
            planned.students,
            options,
            folder,
            progress,
            command=command,
            earlier=earlier,
        )
    else:
        report, path = measure_bundles(
            planned, data, options, folder, progress, command=command, earlier=earlier
        )
    show_report(report, path, output, progress=progress)
    judge(report, output)
    if report.comparison is not None:
        report.comparison.raise_if_regressed()
