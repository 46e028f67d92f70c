"""Compare the time of int8 with that of fp32 on each provider: does int8 pay here?"""

from __future__ import annotations

from dataclasses import dataclass

from kdedge.benchmarks.report import Report
from kdedge.benchmarks.row import Row
from kdedge.benchmarks.subjects import nodes_on_cpu

from kdedge.evaluation.timing import TimingRatio, compare_timings
from kdedge.runtime.session import PROVIDERS

INTEGER_FILES = ("int8", "portable")


@dataclass(frozen=True)
class Int8Answer:
    """Whether an integer file of one model is faster than its fp32 file on one provider.

    Attributes:
        ratio: The integer file's time divided by that of fp32; None if it was not measured.
        sentence: The answer for readers.
    """

    ratio: TimingRatio | None
    sentence: str


def int8_answers(report: Report) -> list[Int8Answer]:
    """Answer for each provider, model and integer file of a report.

    The rounds of both files are paired: they took turns. There is no answer without an fp32 file.
    """
    answers = []
    for row in report.rows:
        if row.form != "onnx" or row.precision not in INTEGER_FILES:
            continue
        fp32 = report.fp32_of(row)
        if fp32 is not None:
            answers.append(_answer(row, fp32))
    return answers


def _answer(row: Row, fp32: Row) -> Int8Answer:
    place = f"{row.subject} on {_provider_name(row.provider)}"
    for each in (row, fp32):
        if each.single is None:
            reason = "; ".join(each.notes) or "not measured"
            return Int8Answer(None, f"{place}: {each.precision} {reason}.")
    assert row.single is not None and fp32.single is not None
    ratio = compare_timings(row.single.medians, fp32.single.medians)
    sentence = (
        f"{place}: {row.precision} {_judgement(ratio)}, {ratio.ratio:.2f} times the time of fp32"
        f" ({ratio.interval})"
    )
    left = nodes_on_cpu(row.nodes)
    if left:
        sentence += f"; {left}"
    return Int8Answer(ratio, sentence + ".")


def _judgement(ratio: TimingRatio) -> str:
    if not ratio.different:
        return "is inconclusive"
    return "pays" if ratio.ratio < 1 else "does not pay"


def _provider_name(provider: str | None) -> str:
    """Return the short name of a provider."""
    for short, full in PROVIDERS.items():
        if full == provider:
            return short
    return (provider or "").removesuffix("ExecutionProvider").lower()
