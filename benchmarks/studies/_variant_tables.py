"""Tables that compare the trainings of a study."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kdedge.benchmarks.studies._experiments import Rows, Scores, TrainingVariant

from kdedge.evaluation.statistics import PairedDifference


@dataclass(frozen=True)
class VariantRow:
    """A variant in a table.

    Attributes:
        name: Its leading cells.
        rows: Its trainings.
        compared: None for the reference, or if no seed finished in both.
    """

    name: list[str]
    rows: Rows
    compared: PairedDifference | None


def table(
    names: Sequence[str], metric: str, compared: str, lines: Iterable[VariantRow], teacher: float
) -> str:
    """Build a Markdown table of variants.

    A variant that failed shows why; one that failed from some seeds shows from how many.

    Args:
        names: Headers of the leading cells.
        metric: Header of the score.
        compared: Header of the comparison's mean.
        lines: The variants.
        teacher: The teacher's score.
    """
    header = [
        *names,
        metric,
        "of the teacher",
        "validation",
        compared,
        "95 % over seeds",
        "95 % over texts",
        "verdict",
        "seconds",
    ]
    rule = ["---", *["--:"] * (len(names) + 3), "---", "---", "---", "--:"]
    rows = [[*line.name, *_cells(line, teacher)] for line in lines]
    return "\n".join(markdown_row(cells) for cells in (header, rule, *rows))


def markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(line: VariantRow, teacher: float) -> list[str]:
    finished = [row for row in line.rows.values() if "test" in row]
    if not finished:
        return [*["–"] * 6, next(iter(line.rows.values()))["why"], "–"]
    compared = line.compared.cells() if line.compared else ["–"] * 4
    failed = len(line.rows) - len(finished)
    if failed:
        compared[-1] += f"; {failed} failed"
    scores = [row["test"] for row in finished]
    validation = statistics.mean(row["validation"] for row in finished)
    seconds = statistics.mean(row["seconds"] for row in finished)
    return [
        mean_and_deviation(scores),
        f"{100 * statistics.mean(scores) / teacher:.1f} %",
        f"{validation:.4f}",
        *compared,
        f"{seconds:.0f}",
    ]


def mean_and_deviation(values: Sequence[float]) -> str:
    """Format the mean; add the standard deviation if there are two values or more."""
    mean = f"{statistics.mean(values):.4f}"
    return f"{mean} ± {statistics.stdev(values):.4f}" if len(values) > 1 else mean


def lines_against_first(
    variants: Sequence[TrainingVariant],
    results: Sequence[Rows],
    scores: Scores,
    *,
    gain_of_first: bool = False,
) -> list[VariantRow]:
    """Compare every variant with the first one.

    Args:
        variants: The variants, with the reference first.
        results: Their trainings, in the same order.
        scores: Compares two of them.
        gain_of_first: Whether to say what the first one gains over each variant, not the reverse.
    """
    reference = results[0]
    lines = []
    for variant, rows in zip(variants, results, strict=True):
        compared = None
        if rows is not reference:
            pair = (reference, rows) if gain_of_first else (rows, reference)
            compared = scores.against(*pair)
        texts = f"{len(variant.context.transfer):,}"
        lines.append(VariantRow([variant.name, texts], rows, compared))
    return lines
