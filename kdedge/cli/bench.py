"""`kdedge bench TARGET...`: what was kept, how fast it is, how much it weighs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click
from rich import box
from rich.markup import escape
from rich.table import Table

from kdedge.benchmarks.bench import bench_bundle, bench_run
from kdedge.benchmarks.examples import Examples, read_examples
from kdedge.benchmarks.options import DEFAULTS, Options
from kdedge.benchmarks.render import caption, cells_of, format_speedup, title, write_report
from kdedge.benchmarks.report import Report, Row, one_line, warnings
from kdedge.benchmarks.targets import Plan, plan
from kdedge.cli.console import ConsoleProgress, results
from kdedge.errors import UsageError
from kdedge.run.progress import Progress
from kdedge.runtime import Bundle


@click.command()
@click.argument(
    "targets",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="TARGET...",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Bench bundles alone on these texts: csv, tsv, jsonl or txt.",
)
@click.option(
    "--text", default="text", show_default=True, help="Column of the (first) text in --data."
)
@click.option(
    "--pair", default="pair", show_default=True, help="Column of the second text, for pair tasks."
)
@click.option(
    "--label", default=None, help="Column of the label. Default: `label` where there is one."
)
@click.option(
    "--provider",
    "providers",
    multiple=True,
    default=DEFAULTS.providers,
    show_default=True,
    help="Execution provider of ONNX Runtime; repeatable.",
)
@click.option(
    "--threads",
    type=click.IntRange(1),
    default=DEFAULTS.threads,
    show_default=True,
    help="Threads of every subject.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.1),
    default=DEFAULTS.seconds,
    show_default=True,
    help="Time for timing, all subjects together.",
)
@click.option(
    "--repeats",
    type=click.IntRange(1),
    default=None,
    help="Single texts of each subject, whatever time they take.",
)
@click.option(
    "--batch",
    type=click.IntRange(1),
    default=DEFAULTS.batch,
    show_default=True,
    help="Texts a batch, for throughput.",
)
@click.option(
    "--target",
    type=click.FloatRange(0, 2, min_open=True),
    default=DEFAULTS.target,
    show_default=True,
    help="Share of the teacher's score that a student must reach.",
)
@click.option(
    "--teacher/--no-teacher",
    default=True,
    help="Run the teacher too; its stored answers are the yardstick in any case.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="Folder of report.json and report.md. Default: bench/ in the run.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document as the last line of stdout."
)
def bench(
    *,
    targets: tuple[Path, ...],
    data: Path | None,
    text: str,
    pair: str,
    label: str | None,
    providers: tuple[str, ...],
    threads: int,
    seconds: float,
    repeats: int | None,
    batch: int,
    target: float,
    teacher: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    """Measure runs or bundles: accuracy kept, latency, throughput, memory, bytes.

    TARGET is a run (all its students), a student's folder in one, or one or more bundles. A bundle in its run is
    measured against its teacher and baselines; a copied one, or one on a machine without torch, alone.

    \b
    Example: kdedge bench runs/quickstart
    Example: kdedge bench my-bundle --data test.csv --text sentence --label class --json
    """
    progress = ConsoleProgress()
    options = Options(
        tuple(dict.fromkeys(providers)), threads, seconds, repeats, batch, teacher, target
    )
    planned = plan(targets, alone=data is not None)
    if planned.run is not None:
        _quiet()
        with planned.run.locked():
            report = bench_run(planned.run, planned.students, options=options, progress=progress)
            path = write_report(report, out or planned.out)
    else:
        report = bench_bundle(
            planned.bundles,
            options=options,
            examples=_given(planned, data, text, pair, label),
            progress=progress,
        )
        path = write_report(report, _outside(planned, out or planned.out))
        if planned.why:
            progress.say(f"the bundle alone: {planned.why}")
    show(report, path, as_json=as_json, progress=progress)


def bench_and_show(
    folder: Path,
    *,
    as_json: bool = False,
    options: Options = DEFAULTS,
    progress: Progress | None = None,
) -> Report:
    """Bench a whole run, write its report and show it, as `kdedge run` does at its end."""
    from kdedge.run.layout import RunDir

    _quiet()
    progress = progress or ConsoleProgress()
    run, students = RunDir.open(folder)
    with run.locked():
        report = bench_run(run, students, options=options, progress=progress)
        path = write_report(report, run.folder / "bench")
    show(report, path, as_json=as_json, progress=progress)
    return report


def show(report: Report, path: Path, *, as_json: bool, progress: Progress) -> None:
    """The report on stdout, for eyes or as one JSON line; its doubts and its path on stderr when stdout is data."""
    if as_json:
        progress.say(f"report: {path}")
        click.echo(one_line(report))
        return
    console = results()
    console.print(rich_table(report))
    for line in warnings(report):
        console.print(f"- {escape(line)}", highlight=False)
    console.print(f"report: {escape(str(path))}", soft_wrap=True, highlight=False)


def _quiet() -> None:
    """Keep transformers from talking of every checkpoint it opens."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def _given(
    planned: Plan, data: Path | None, text: str, pair: str, label: str | None
) -> Examples | None:
    if data is None:
        return None
    return read_examples(
        data, Bundle.open(planned.bundles[0]).manifest.spec, text=text, pair=pair, label=label
    )


def _outside(planned: Plan, out: Path) -> Path:
    """A bundle holds the files its manifest lists and no other."""
    if any(out.resolve().is_relative_to(bundle.resolve()) for bundle in planned.bundles):
        raise UsageError(
            "a report cannot be written into a bundle",
            str(out),
            "name a folder outside it with --out",
        )
    return out


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
