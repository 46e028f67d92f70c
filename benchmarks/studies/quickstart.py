"""How much do the quick start's students retain and gain over three seeds?

    kdedge distill configs/quickstart.toml --seeds 3
    kdedge export runs/quickstart
    kdedge bench runs/quickstart
    python benchmarks/studies/quickstart.py runs/quickstart

Writes benchmarks/results/quickstart.json from the run and the runs of its other seeds, which stand
next to it, and prints the tables of benchmarks/results/quickstart.md. Then it draws the picture
of docs/index.md, docs/assets/quickstart.svg, from that file. Without RUN it only draws.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import altair as alt
import click

ROOT = Path(__file__).resolve().parents[2]
FIGURES = ROOT / "benchmarks" / "results" / "quickstart.json"
PICTURE = ROOT / "docs" / "assets" / "quickstart.svg"
STUDENT = "distilled student"
COLOURS = {"teacher": "#6b7280", STUDENT: "#0f766e", "bag of words": "#b45309"}
LABEL_ONLY = "from labels alone"
STUDENTS = {"tinybert": ("TinyBERT, int8", "right"), "bilstm": ("BiLSTM, int8", "left")}
"""Student -> its name in the picture, and the side of its label: both are equally fast."""


def collect(folder: Path) -> dict[str, Any]:
    """Read the scores of all seeds and the timings of the first one."""
    from kdedge.benchmarks.studies._seed_runs import runs_of

    from kdedge.distillation.seeds import distillation_gains, seed_stats

    runs = runs_of(folder.name, folder.parent)
    report = json.loads((folder / "bench" / "report.json").read_text())
    models = {}
    for name, stats in seed_stats(runs).items():
        models[name] = {"scores": list(stats.values), "mean": stats.mean, "sd": stats.sd}
    gains = {}
    for name, gain in distillation_gains(runs).items():
        gains[name] = {"mean": gain.mean, "text": str(gain), "verdict": gain.verdict}
    return {
        "created": report["created"],
        "machine": report["machine"],
        "models": models,
        "gains": gains,
        "rows": [_shown(row) for row in report["rows"]],
    }


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of the report without what no table and no picture shows."""
    unused = ("agreement", "equivalence", "gain", "nodes")
    return {name: value for name, value in row.items() if name not in unused}


def tables(figures: dict[str, Any]) -> str:
    """Return the tables of the results page as Markdown."""
    lines = ["| model | accuracy, three seeds | from labels alone | gain | verdict |"]
    lines.append("| --- | --- | --- | --- | --- |")
    models = figures["models"]
    lines.append(f"| teacher | {models['teacher']['mean']:.4f} | | | |")
    for student, gain in figures["gains"].items():
        distilled = _mean_and_deviation(models[student])
        baseline = _mean_and_deviation(models[f"{student} baseline"])
        text = gain["text"].rpartition(":")[0]
        lines.append(f"| {student} | {distilled} | {baseline} | {text} | {gain['verdict']} |")
    lines += ["", "| model | accuracy | retention, % [95 %] | p50 µs, one text | speedup | size |"]
    lines.append("| --- | --: | --- | --: | --: | --: |")
    for row in figures["rows"]:
        lines.append(_row_line(row))
    return "\n".join(lines)


def _mean_and_deviation(model: dict[str, Any]) -> str:
    return f"{model['mean']:.4f} ± {model['sd']:.4f}"


def _row_line(row: dict[str, Any]) -> str:
    retention = "–"
    if row["retention_low"] is not None:
        share, low, high = (
            100 * row[name] for name in ("retention", "retention_low", "retention_high")
        )
        retention = f"{share:.1f} [{low:.1f}–{high:.1f}]"
    timing, speedup = "–", "–"
    if row["p50_us"] is not None:
        timing = f"{row['p50_us']:.0f}"
        low, high = row["speedup_low"], row["speedup_high"]
        speedup = f"{row['speedup']:.1f}x [{low:.1f}–{high:.1f}]"
    size = "–" if row["bytes"] is None else f"{row['bytes'] / 1e6:.1f} MB"
    cells = [_name(row), f"{row['value']:.4f}", retention, timing, speedup, size]
    return f"| {' | '.join(cells)} |"


def _name(row: dict[str, Any]) -> str:
    if row["kind"] == "baseline" and not row["subject"].endswith(" baseline"):
        return str(row["subject"])
    return f"{row['subject']}, {row['form']} {row['precision']}"


def draw(figures: dict[str, Any]) -> str:
    """Draw accuracy against latency as SVG, with each student's label-only baseline below it."""
    points = _points(figures["rows"])
    lowest = min(point["accuracy"] for point in points)
    x = alt.X(
        "ms:Q",
        title="milliseconds for one text on one core (logarithmic)",
        scale=alt.Scale(type="log", domain=[0.06, 40], nice=False),
        axis=alt.Axis(values=[0.2, 0.5, 1, 2, 5, 10, 20], grid=False),
    )
    y = alt.Y(
        "accuracy:Q",
        title="accuracy on the test texts",
        scale=alt.Scale(domain=[lowest - 0.02, 0.96], nice=False),
        axis=alt.Axis(format=".2f", tickCount=6, gridColor="#e5e7eb"),
    )
    colour = alt.Color(
        "kind:N",
        scale=alt.Scale(domain=list(COLOURS), range=list(COLOURS.values())),
        legend=None,
    )
    size = alt.Size("megabytes:Q", scale=alt.Scale(range=[60, 1400]), legend=None)
    chart = alt.Chart(alt.Data(values=points)).encode(x=x)
    timed = chart.transform_filter(f"datum.kind != '{LABEL_ONLY}'")
    alone = chart.transform_filter(f"datum.kind == '{LABEL_ONLY}'")
    layers = [
        alone.mark_rule(strokeDash=[4, 3], color=COLOURS[STUDENT]).encode(y=y, y2="distilled:Q"),
        alone.mark_point(size=70, color=COLOURS[STUDENT], strokeWidth=2).encode(y=y),
        timed.mark_circle(opacity=0.9).encode(y=y, color=colour, size=size),
    ]
    for side, align, shift in (("left", "right", -24), ("right", "left", 16)):
        on_side = f"datum.side == '{side}'"
        names = timed.transform_filter(on_side).mark_text(
            align=align, dx=shift, dy=-9, fontSize=13, fontWeight="bold"
        )
        details = timed.transform_filter(on_side).mark_text(
            align=align, dx=shift, dy=7, fontSize=12
        )
        rings = alone.transform_filter(on_side).mark_text(align=align, dx=shift, dy=4, fontSize=12)
        layers += [
            names.encode(y=y, text="name:N", color=colour),
            details.encode(y=y, text="detail:N"),
            rings.encode(y=y, text="name:N"),
        ]
    return to_svg(
        alt.layer(*layers).properties(width=620, height=330, background="white", padding=12)
    )


def _points(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the teacher, the int8 students, their baselines and the bag of words as points."""
    points = []
    for row in rows:
        look = _look(row)
        if look is None:
            continue
        name, kind, side = look
        point = {
            "name": name,
            "kind": kind,
            "side": side,
            "ms": row["p50_us"] / 1e3,
            "accuracy": row["value"],
            "megabytes": row["bytes"] / 1e6,
            "detail": f"{row['value']:.3f}, {row['bytes'] / 1e6:.1f} MB",
        }
        points.append(point)
        if kind == STUDENT:
            value = _label_only_value(rows, row["subject"])
            ring = {
                "name": f"{LABEL_ONLY}: {value:.3f}",
                "kind": LABEL_ONLY,
                "accuracy": value,
                "side": "right",
            }
            points.append(point | ring | {"distilled": row["value"]})
    return points


def _look(row: dict[str, Any]) -> tuple[str, str, str] | None:
    """Return name, kind and side of the label of a row; None for rows that are not drawn."""
    if row["subject"].startswith("tf-idf"):
        return "TF-IDF", "bag of words", "right"
    if row["subject"] == "teacher" and row["form"] == "torch":
        return "teacher, fp32", "teacher", "left"
    if row["precision"] == "int8" and row["subject"] in STUDENTS:
        name, side = STUDENTS[row["subject"]]
        return name, STUDENT, side
    return None


def _label_only_value(rows: Sequence[dict[str, Any]], student: str) -> float:
    (value,) = (row["value"] for row in rows if row["subject"] == f"{student} baseline")
    return float(value)


def to_svg(chart: alt.LayerChart) -> str:
    """Render a chart as SVG, with at most three decimals of a pixel."""
    import vl_convert

    svg = vl_convert.vegalite_to_svg(chart.to_dict())
    return re.sub(r"(\d+\.\d{3})\d+", r"\1", svg) + "\n"


@click.command(help=__doc__)
@click.argument("run", required=False, type=click.Path(path_type=Path, exists=True))
def study(run: Path | None) -> None:
    if run is not None:
        figures = collect(run)
        FIGURES.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    figures = json.loads(FIGURES.read_text())
    click.echo(tables(figures))
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(draw(figures))
    click.echo(f"\npicture: {PICTURE.relative_to(ROOT)}")


if __name__ == "__main__":
    study()
