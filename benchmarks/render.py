"""A report for eyes: a table for the terminal and a page of Markdown, written beside the document."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from pathlib import Path

from kdedge.benchmarks.report import Report, Row, one_line
from kdedge.benchmarks.retention import Retention
from rich import box
from rich.markup import escape
from rich.table import Table

from kdedge.errors import MachineError
from kdedge.io.atomic import write_atomic

NOTHING = "–"
WORDS = ("subject", "form", "provider", "kept % [95 %]", "verdict", "source", "rejected")
"""Columns of Markdown tables that are not numbers."""
CURVE_FILE = "curve.svg"
SUBJECT_WIDTH = 26

COLUMNS = (
    ("subject", "who answered: the teacher, a student or a baseline, and the form it ran in"),
    ("value", "the task's metric on the reported texts"),
    (
        "kept",
        "value as a share of the teacher's (its torch row), with a 95 % interval: paired bootstrap over the texts, never narrower than so many texts allow",
    ),
    (
        "verdict",
        "kept: the whole interval reaches the target; lost: it stays below; inconclusive: it does not tell; reference: the yardstick",
    ),
    ("p50, p90, p99", "microseconds for a single text, tokenization included"),
    ("model p50", "the same without tokenization"),
    (
        "speed-up",
        "times faster than the teacher in torch on the CPU: median [quartiles] over interleaved rounds",
    ),
    ("than best", "times faster than the teacher's fastest row"),
    ("texts/s", "in batches, tokenization included"),
    ("size", "bytes of the model's own file on disk"),
    (
        "peak",
        "largest resident memory of a process that loads the subject alone and answers a few texts, libraries included",
    ),
    ("load", "seconds from files to a model that may answer, imports not counted"),
)
"""What each column means."""


def write_report(report: Report, folder: Path) -> Path:
    """Write report.md, report.json and, of a run that measured its growth, curve.svg into `folder`, each whole or not at all; returns the path of report.json."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(
            "the report's folder cannot be made",
            f"{folder}: {error.strerror}",
            "name another with --out",
        ) from error
    if curve := report.learned_from.get("curve"):
        from kdedge.distillation.learning_curve import LearningCurve
        from kdedge.distillation.learning_curve_plot import plot_learning_curve

        write_atomic(
            folder / CURVE_FILE,
            plot_learning_curve(
                LearningCurve.from_json(curve), report.task["metric"], report.task["name"]
            ),
        )
    write_atomic(folder / "report.md", markdown(report))
    write_atomic(folder / "report.json", one_line(report) + "\n")
    return folder / "report.json"


def rich_table(report: Report) -> Table:
    """The table of stdout; fits 120 columns."""
    # Gaps are the box's own single column; headers break in two lines so that numbers decide the widths.
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=0,
        show_edge=False,
        title=_escaped(_title(report)),
        title_justify="left",
    )
    table.add_column("subject", no_wrap=True)
    table.add_column(
        _escaped(report.task["metric"].replace("_", " ")), justify="right", no_wrap=True
    )
    for header in ("kept % [95 %]", "verdict"):
        table.add_column(escape(header), justify="left", no_wrap=True)
    for header in (
        "p50\nµs",
        "p90\nµs",
        "p99\nµs",
        "times\nfaster",
        "than\nbest",
        "texts\n/s",
        "size",
        "peak\nMB",
    ):
        table.add_column(header, justify="right", no_wrap=True)
    for row in report.rows:
        cells = [_fitted(row), *_terminal_cells(report, row)[1:]]
        table.add_row(
            *[_escaped(cell) for cell in cells], style="dim" if row.kind == "baseline" else None
        )
    table.caption, table.caption_justify = _escaped(_caption(report)), "left"
    return table


def warnings(report: Report) -> list[str]:
    """Everything the report doubts, most general first; equal doubts of several rows are told once."""
    told: dict[str, list[str]] = {}
    for row in report.rows:
        for note in report.notes_of(row):
            told.setdefault(note, []).append(row.label)
    return [
        *report.notes,
        *(f"{', '.join(dict.fromkeys(labels))}: {note}" for note, labels in told.items()),
    ]


def markdown(report: Report) -> str:
    """The page report.md."""
    lines = [f"# {_md(_title(report))}", "", f"{_md(_caption(report))}", ""]
    header = [
        "subject",
        "form",
        "provider",
        _md(report.task["metric"]),
        "kept % [95 %]",
        "verdict",
        "p50 µs",
        "p90 µs",
        "p99 µs",
    ]
    header += ["model p50 µs", "speed-up", "than best", "texts/s", "size", "peak MB", "load s"]
    lines += _md_table(header, [_markdown_cells(report, row) for row in report.rows])
    lines += _learned_from(report)
    lines += ["", "## Doubts and conditions", ""]
    lines += [f"- {_md(line)}" for line in warnings(report)] or ["- none"]
    lines += ["", "## What the columns mean", ""]
    lines += [f"- **{name}**: {meaning}" for name, meaning in COLUMNS]
    lines += ["", "## Machine", ""]
    lines += [f"- {name}: {_md(_plain(value))}" for name, value in report.machine.items()]
    lines += [
        "",
        f"Made {report.created} by kdedge {report.kdedge}: `{report.command.replace('`', '')}`.",
        "Raw values are in report.json.",
        "",
    ]
    return "\n".join(lines)


def _learned_from(report: Report) -> list[str]:
    """The section on the transfer set; none of a bundle that stands alone."""
    learned = report.learned_from
    if not learned:
        return []
    counts = ", ".join(f"{count:,} {_md(origin)}" for origin, count in learned["origins"].items())
    lines = ["", "## What the students learned from", "", f"Texts by origin: {counts}."]
    if learned.get("sources"):
        rows = [
            [
                name,
                *(_count(made.get(key)) for key in ("attempts", "produced", "used")),
                ", ".join(f"{why} {n:,}" for why, n in made["rejected"].items()) or "none",
            ]
            for name, made in learned["sources"].items()
        ]
        lines += ["", *_md_table(["source", "attempts", "produced", "used", "rejected"], rows)]
        late = ", ".join(
            f"{_md(why)} {count:,}" for why, count in learned["rejected"].items() if count
        )
        lines += ["", f"Refused once the teacher had answered: {late or 'none'}."]
    return lines + (
        ["", f"![score on the validation split against texts]({CURVE_FILE})"]
        if "curve" in learned
        else []
    )


def _fitted(row: Row) -> str:
    """The row's label in SUBJECT_WIDTH columns: a long name is cut, the form behind it is not."""
    over = len(row.label) - SUBJECT_WIDTH
    return (
        row.label
        if over <= 0
        else row.label.replace(
            row.subject, row.subject[: max(1, len(row.subject) - over - 1)] + "…", 1
        )
    )


def _escaped(text: str) -> str:
    """Text that rich prints as it stands, on one line."""
    return escape(" ".join(text.split()))


def _title(report: Report) -> str:
    teacher = report.teacher.get("model")
    return f"{report.task['name']}: measured" + (f" against {teacher}" if teacher else "")


def _caption(report: Report) -> str:
    texts = report.task.get("texts")
    quality = (
        f"{report.task['metric']} on {texts} texts"
        if report.task.get("measured")
        else "time alone: no labels were given"
    )
    threads = report.machine["threads"]
    return f"{quality}; {threads} thread{'s' if threads > 1 else ''}; single texts with tokenization, interleaved; to keep: {report.target:.4g} of the teacher"


def _terminal_cells(report: Report, row: Row) -> list[str]:
    speed, best = report.speedup(row, report.base), report.speedup(row, report.fastest_teacher)
    single = row.single
    return [
        row.label,
        _number(row.value, 4),
        _kept(row.retention),
        row.retention.verdict if row.retention else NOTHING,
        *([_us(single.p50), _us(single.p90), _us(single.p99)] if single else [NOTHING] * 3),
        _times(speed[0] if speed else None),
        _times(best[0] if best else None),
        _count(row.texts_per_s),
        _size(row.bytes),
        _number(row.footprint.peak_mb, 0),
    ]


def _markdown_cells(report: Report, row: Row) -> list[str]:
    cells = _terminal_cells(report, row)
    speed = report.speedup(row, report.base)
    form = " ".join(part for part in (row.form, row.precision) if part)
    with_quartiles = f"{cells[7]} [{speed[1]:.1f}–{speed[2]:.1f}]" if speed else NOTHING
    model = _us(row.model.p50) if row.model else NOTHING
    start = [row.subject, form, row.provider or NOTHING, *cells[1:7], model, with_quartiles]
    return [*start, *cells[8:], _number(row.footprint.load_s, 2)]


def _md_table(header: list[str], rows: Iterable[list[str]]) -> list[str]:
    rule = ["---" if name in WORDS else "--:" for name in header]
    return [
        "| " + " | ".join(cells) + " |"
        for cells in (header, rule, *([_md(cell) for cell in row] for row in rows))
    ]


def _md(text: str) -> str:
    """Text that Markdown shows as it stands: no tags, no table breaks, no markup."""
    flat = " ".join(html.escape(text, quote=False).split())
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", flat)


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {entry}" for name, entry in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "unknown" if value is None else str(value)


def _kept(retention: Retention | None) -> str:
    if retention is None or retention.share is None:
        return NOTHING
    if retention.low is None or retention.high is None:
        return f"{100 * retention.share:.1f}"
    return f"{100 * retention.share:.1f} [{100 * retention.low:.1f}–{100 * retention.high:.1f}]"


def _number(value: float | None, digits: int) -> str:
    return NOTHING if value is None else f"{value:.{digits}f}"


def _us(seconds: float) -> str:
    return f"{seconds * 1e6:.0f}"


def _times(value: float | None) -> str:
    if value is None:
        return NOTHING
    return f"{value:.2f}x" if value < 1 else f"{value:.1f}x" if value < 100 else f"{value:.0f}x"


def _count(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.0f}"


def _size(count: int | None) -> str:
    if count is None:
        return NOTHING
    return (
        f"{count / 1e3:.0f} kB"
        if count < 1e6
        else f"{count / 1e6:.1f} MB"
        if count < 1e8
        else f"{count / 1e6:.0f} MB"
    )
