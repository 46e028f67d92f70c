"""The report and the table of benchmarks/studies/peers.py, from the measured values alone."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from _gpu_section import gpu_section
from _peer_runs import BUNDLE, LABELLED, PEERS, TEACHER, TRANSFER, Peer
from _peer_values import PeerValues, read_values
from kdedge.benchmarks import machine
from kdedge.benchmarks.bench import run_examples
from kdedge.benchmarks.figures import NOTHING, FigureSection, FigureTable
from kdedge.benchmarks.options import DEFAULTS
from kdedge.benchmarks.page import html_page
from kdedge.benchmarks.report import Report, one_line
from kdedge.benchmarks.retention import REFERENCE, paired_retention
from kdedge.benchmarks.row import Row

from kdedge import __version__
from kdedge.data.task import Task
from kdedge.evaluation.score_interval import score_interval
from kdedge.evaluation.timing import Timings
from kdedge.io.atomic import write_atomic
from kdedge.io.paths import short_name
from kdedge.runtime import metrics
from kdedge.teacher.result import TeacherResult

MB = 1e6
PEER_OF = {peer.key: peer for peer in (TEACHER, BUNDLE, *PEERS)}
LOCKS = Path(__file__).resolve().parents[2] / "configs" / "locks" / "peers"
LEARNS_FROM = {"": NOTHING, LABELLED: "labelled", TRANSFER: "transfer set"}
HEADER = (
    "method",
    "learns from",
    "score [95 %]",
    "p50 µs",
    "p99 µs",
    "MB of the model",
    "MB with packages",
    "s to train or convert",
)
NEEDS = FigureSection(
    "needs",
    "What each method needs",
    "The transfer set has the labelled texts and the augmented ones, all with the teacher's labels;"
    " the students learn from it. A method without texts converts the teacher.",
    terms=(
        ("MB with packages", "the files, and the packages that the process had loaded"),
        ("s to train or convert", "without the teacher's training; not taken on a quiet machine"),
    ),
)


@dataclass(frozen=True)
class Source:
    """What a report is about.

    Attributes:
        name: Its name in the command, such as `sst2`.
        gpu: Results of benchmarks/studies/gpu.py, or None.
    """

    name: str
    task: Task
    teacher: TeacherResult
    gpu: Path | None


def write(source: Source, measured: Path, folder: Path) -> str:
    """Write peers-NAME.html and peers-NAME.json; return the table of the results page."""
    values = read_values(measured, len(source.task.test.texts))
    report = build(source, values)
    write_atomic(folder / f"peers-{source.name}.html", html_page(report))
    document = json.loads(one_line(report)) | {"right": right_answers(source.task, values)}
    write_atomic(folder / f"peers-{source.name}.json", json.dumps(document) + "\n")
    return markdown_table(report, values)


def right_answers(task: Task, values: Sequence[PeerValues]) -> dict[str, str]:
    """Return for each subject a digit per test text: 1 if its answer is right, else 0.

    From these anyone can compute the scores and the paired intervals again.
    """
    answers = {}
    for each in values:
        if not each.problem:
            right = metrics.decide(task.spec, each.scores) == task.test.labels
            answers[each.name] = "".join(map(str, right.astype(int).tolist()))
    return answers


def build(source: Source, values: Sequence[PeerValues]) -> Report:
    """Build the report of one task; the teacher in torch is the first of the values."""
    task, examples = source.task, run_examples(source.task)
    reference = values[0].scores
    rows = tuple(row_of(each, reference, task) for each in values if not each.problem)
    described = machine.describe(threads=1)
    return Report(
        task={
            "name": task.spec.name,
            "kind": task.spec.kind,
            "metric": task.spec.metric,
            "pair": task.spec.pair,
            "texts": len(examples),
            "measured": True,
            "digest": examples.digest(),
        },
        teacher={
            "model": short_name(source.teacher.model),
            "fine_tuned": source.teacher.fine_tuned,
            "metric": task.spec.metric,
            "value": rows[0].value,
        },
        machine=described,
        rows=rows,
        target=DEFAULTS.target,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        kdedge=__version__,
        command=f"make peers && python benchmarks/studies/peers.py {source.name}",
        notes=tuple(machine.notes(described)),
        sections=(needs_section(values), gpu_section(source.gpu)),
    )


def row_of(values: PeerValues, reference: np.ndarray, task: Task) -> Row:
    """Build the row of a subject; `reference` holds the teacher's scores."""
    peer = PEER_OF[values.program]
    spec, labels = task.spec, task.test.labels
    precision, provider = None, None
    retention = paired_retention(spec, values.scores, reference, labels, target=DEFAULTS.target)
    if peer is TEACHER:
        precision, provider, retention = "fp32", "torch cpu", REFERENCE
    if peer is BUNDLE:
        precision, provider = "int8", "CPUExecutionProvider"
    return Row(
        subject=values.name,
        kind=kind_of(peer),
        form=peer.form,
        precision=precision,
        provider=provider,
        threads=1,
        value=metrics.score(spec, values.scores, labels),
        interval=score_interval(spec, values.scores, labels),
        retention=retention,
        single=Timings(values.rounds),
        bytes=values.model_bytes,
        is_form_of_teacher=not peer.texts and peer is not TEACHER,
    )


def kind_of(peer: Peer) -> str:
    return "model" if peer in (TEACHER, BUNDLE) else "peer"


def needs_section(values: Sequence[PeerValues]) -> FigureSection:
    """Show what each subject learned from and how much it needs; say why one was not measured."""
    rows = []
    lines = [f"Environments: {versions()}."]
    for each in values:
        if each.problem:
            lines.append(f"{each.name} was not measured: {each.problem}")
            continue
        rows.append((each.name, learns_from(each), *need_cells(each)))
    table = FigureTable(("method", *HEADER[1:2], *HEADER[6:]), tuple(rows), words=(0, 1))
    return FigureSection(
        NEEDS.name, NEEDS.heading, NEEDS.explanation, table, tuple(lines), NEEDS.terms
    )


def versions() -> str:
    """Name the packages that each environment is made for, with their locked versions."""
    environments = []
    for requirements in sorted(LOCKS.glob("*.in")):
        locked = requirements.with_suffix(".txt").read_text(encoding="utf-8")
        packages = []
        for line in requirements.read_text(encoding="utf-8").splitlines():
            name = re.match(r"[A-Za-z0-9._-]+", line)
            version = name and re.search(rf"(?mi)^{re.escape(name[0])}==([^ ;]+)", locked)
            if name and version:
                packages.append(f"{name[0]} {version[1]}")
        environments.append(f"{requirements.stem} ({', '.join(packages)})")
    return "; ".join(environments)


def learns_from(values: PeerValues) -> str:
    return LEARNS_FROM[PEER_OF[values.program].texts]


def need_cells(values: PeerValues) -> tuple[str, str]:
    """Format the size with all packages, and the seconds to train."""
    seconds = NOTHING if values.fit_seconds is None else f"{values.fit_seconds:,.0f}"
    return f"{(values.model_bytes + values.package_bytes) / MB:,.0f}", seconds


def markdown_table(report: Report, values: Sequence[PeerValues]) -> str:
    """Write one row for each subject; a subject without values has its reason."""
    lines = [f"| {' | '.join(HEADER)} |", "| --- | --- | --- |" + " --: |" * (len(HEADER) - 3)]
    row_of_name = {row.subject: row for row in report.rows}
    for each in values:
        cells = [f"not measured: {each.problem}", *[NOTHING] * (len(HEADER) - 3)]
        if not each.problem:
            cells = [*measured_cells(row_of_name[each.name]), *need_cells(each)]
        lines.append(f"| {' | '.join([method_name(each), learns_from(each), *cells])} |")
    return "\n".join(lines)


def method_name(values: PeerValues) -> str:
    """Name a subject in the table of the results page."""
    peer = PEER_OF[values.program]
    if peer is TEACHER:
        return "teacher, torch fp32"
    if peer is BUNDLE:
        return f"kdedge, {values.name} int8"
    return values.name if peer.texts else f"teacher, {values.name}"


def measured_cells(row: Row) -> list[str]:
    assert row.interval is not None and row.single is not None
    low, high = row.interval
    return [
        f"{row.value:.4f} [{low:.4f}, {high:.4f}]",
        f"{1e6 * row.single.p50:,.0f}",
        f"{1e6 * row.single.p99:,.0f}",
        f"{(row.bytes or 0) / MB:,.1f}",
    ]
