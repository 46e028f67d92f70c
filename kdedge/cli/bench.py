"""`kdedge bench TARGET...`: retention, latency, memory and size."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import click
from rich import box
from rich.markup import escape
from rich.table import Table

from kdedge.benchmarks.bench import bench_bundle, bench_run, bundle_settings, run_settings
from kdedge.benchmarks.examples import Examples, read_examples
from kdedge.benchmarks.options import DEFAULTS, Options
from kdedge.benchmarks.output_folder import check_replaceable, report_folder
from kdedge.benchmarks.render import (
    PAGE_FILE,
    caption,
    cells_of,
    format_speedup,
    title,
    write_report,
)
from kdedge.benchmarks.report import Report, Row, one_line, warnings
from kdedge.benchmarks.summary import summary
from kdedge.benchmarks.targets import Plan, plan
from kdedge.cli.console import ConsoleProgress, results
from kdedge.cli.invocation import command_line
from kdedge.cli.options import json_option, option_group
from kdedge.errors import UsageError
from kdedge.run.progress import Progress
from kdedge.runtime import Bundle

SUBJECT_WIDTH = 26
"""Widest label in the table; a longer name is shortened."""

TERMINAL_COLUMNS = {
    "subject": "subject",
    "score": "score",
    "retention % [95 %]": "retention\n% [95 %]",
    "verdict": "verdict",
    "p50 µs": "p50\nµs",
    "p90 µs": "p90\nµs",
    "p99 µs": "p99\nµs",
    "speedup": "speed\nup",
    "vs best": "vs\nbest",
    "texts/s": "texts\n/s",
    "size": "size",
    "peak MB": "peak\nMB",
}
"""Column -> header. Headers break into two lines, so that the numbers decide the widths."""

LEFT_ALIGNED = ("subject", "retention % [95 %]", "verdict")


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
        spec = Bundle.open(bundle).manifest.spec
        return read_examples(self.data, spec, text=self.text, pair=self.pair, label=self.label)


@click.command()
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
        help="Bench only bundles, on the texts of a csv, tsv, jsonl or txt file.",
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
        help="Execution provider of ONNX Runtime; repeatable.",
    ),
    click.option(
        "--threads",
        type=click.IntRange(1),
        default=DEFAULTS.threads,
        show_default=True,
        help="CPU threads for every model.",
    ),
    click.option(
        "--seconds",
        type=click.FloatRange(0.1),
        default=DEFAULTS.seconds,
        show_default=True,
        help="Total time for latency measurements.",
    ),
    click.option(
        "--repeats",
        type=click.IntRange(1),
        help="Single texts to time per model, instead of --seconds.",
    ),
    click.option(
        "--batch",
        type=click.IntRange(1),
        default=DEFAULTS.batch,
        show_default=True,
        help="Batch size for throughput.",
    ),
    click.option(
        "--target",
        type=click.FloatRange(0, 2, min_open=True),
        default=DEFAULTS.target,
        show_default=True,
        help="Share of the teacher's score that counts as retained.",
    ),
    click.option(
        "--teacher/--no-teacher",
        default=True,
        help="Time the teacher too; retention always uses its stored logits.",
    ),
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for report.html, report.md and report.json. Default: bench/ in the run, or"
    " bench/NAME for a bundle. Options that change what is measured become part of its name,"
    " such as bench-threads-4. A report of other settings is never replaced.",
)
@json_option
def bench(
    targets: tuple[Path, ...],
    data: DataArguments,
    options: Options,
    out: Path | None,
    as_json: bool,
) -> None:
    """Measure runs or bundles: retention, latency, throughput, memory, size.

    TARGET is a run (all its students), the folder of one student in a run, or one or more
    bundles. A bundle in its run is compared with its teacher and with baselines. A copied
    bundle, or one on a machine without torch, is measured alone.

    \b
    Example: kdedge bench runs/quickstart
    Example: kdedge bench my-bundle --data test.csv --text sentence --label class --json
    """
    progress = ConsoleProgress()
    planned = plan(targets, alone=data.data is not None)
    folder = out or report_folder(planned.out, options, data.data)
    command = command_line(click.get_current_context())
    if planned.run is not None:
        _silence_transformers()
        with planned.run.locked():
            check_replaceable(folder, run_settings(planned.run, planned.students, options))
            report = bench_run(planned.run, planned.students, options=options, progress=progress)
            report = replace(report, command=command)
            path = write_report(report, folder)
    else:
        _check_outside(planned, folder)
        examples = data.read(planned.bundles[0])
        check_replaceable(folder, bundle_settings(planned.bundles, options, examples))
        report = bench_bundle(
            planned.bundles, options=options, examples=examples, progress=progress
        )
        report = replace(report, command=command)
        path = write_report(report, folder)
        if planned.why:
            progress.say(f"only the bundle is measured: {planned.why}")
    show(report, path, as_json=as_json, progress=progress)


def bench_and_show(
    folder: Path, *, as_json: bool = False, options: Options = DEFAULTS, progress: Progress
) -> Report:
    """Bench a whole run, write its report and print it."""
    from kdedge.run.layout import RunDir

    _silence_transformers()
    run, students = RunDir.open(folder)
    out = report_folder(run.bench, options)
    with run.locked():
        check_replaceable(out, run_settings(run, students, options))
        report = bench_run(run, students, options=options, progress=progress)
        context = click.get_current_context(silent=True)
        if context is not None:
            report = replace(report, command=command_line(context))
        path = write_report(report, out)
    show(report, path, as_json=as_json, progress=progress)
    return report


def show(report: Report, path: Path, *, as_json: bool, progress: Progress) -> None:
    """Print a report: its warnings, a table, the summary and the path, or one JSON line."""
    page = path.with_name(PAGE_FILE)
    if as_json:
        progress.say(f"report: {page}")
        click.echo(one_line(report))
        return
    console = results()
    for line in warnings(report):
        console.print(f"- {escape(line)}", highlight=False)
    console.print(rich_table(report))
    sentence = summary(report)
    if sentence:
        console.print(f"\n{_escape_line(sentence)}", highlight=False)
    console.print(f"\nreport: {escape(str(page))}", soft_wrap=True, highlight=False)


def _silence_transformers() -> None:
    """Turn off messages and progress bars for every checkpoint that is loaded."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def _check_outside(planned: Plan, out: Path) -> None:
    """Check that the report goes outside of bundles, which may not contain other files."""
    if any(out.resolve().is_relative_to(bundle.resolve()) for bundle in planned.bundles):
        raise UsageError(
            "a report cannot be written into a bundle",
            str(out),
            "name another folder with --out",
        )


def rich_table(report: Report) -> Table:
    """Build the table for stdout; it fits into 120 columns."""
    # Without padding and edges, the box's own column is the only gap.
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=0,
        show_edge=False,
        title=_escape_line(title(report)),
        title_justify="left",
        caption=_escape_line(caption(report)),
        caption_justify="left",
    )
    headers = TERMINAL_COLUMNS | {"score": report.task["metric"].replace("_", " ")}
    for column, header in headers.items():
        justify: Literal["left", "right"] = "left" if column in LEFT_ALIGNED else "right"
        table.add_column(escape(header), justify=justify, no_wrap=True)
    for row in report.rows:
        cells = cells_of(report, row)
        cells["subject"] = _short_label(row)
        cells["speedup"] = format_speedup(row, report.base)
        table.add_row(
            *[_escape_line(cells[column]) for column in TERMINAL_COLUMNS],
            style="dim" if row.kind == "baseline" else None,
        )
    return table


def _short_label(row: Row) -> str:
    """Shorten a long name; keep the form after it."""
    excess = len(row.label) - SUBJECT_WIDTH
    if excess <= 0:
        return row.label
    name = row.subject[: max(1, len(row.subject) - excess - 1)] + "…"
    return row.label.replace(row.subject, name, 1)


def _escape_line(text: str) -> str:
    """Put text on one line and protect it from rich's markup."""
    return escape(" ".join(text.split()))
