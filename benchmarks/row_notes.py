"""Notes on one row of a report that need another row: the baseline, or the fp32 file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdedge.benchmarks.gain import gain_text

from kdedge.evaluation.timing import compare_timings

if TYPE_CHECKING:
    from kdedge.benchmarks.row import Row


def baseline_notes(row: Row, baseline: Row | None) -> list[str]:
    """Return a note if the same student does better without its teacher."""
    if baseline is None or baseline.value is None or row.value is None:
        return []
    if row.kind == "baseline" or baseline.value <= row.value:
        return []
    if row.gain is not None and row.gain.is_within_chance:
        return [
            "the same student trained on the labels alone scores higher "
            f"({baseline.value:.4f}): {gain_text(row.gain)}; these texts show no gain by "
            "distillation. Unlabelled texts ([augment.pool]) or more test texts may"
        ]
    return [
        f"the same student trained on the labels alone scores higher ({baseline.value:.4f}): "
        "distillation brings nothing here; train the teacher longer, add unlabelled texts "
        "([augment.pool]), or use the labels alone"
    ]


def int8_speed_notes(int8: Row, fp32: Row | None) -> list[str]:
    """Return a note if int8 is not measurably faster than fp32; [] if either was not timed."""
    if int8.precision != "int8" or int8.single is None or fp32 is None or fp32.single is None:
        return []
    timing = compare_timings(int8.single.medians, fp32.single.medians)
    if timing.different and timing.ratio < 1:
        return []
    ratio = f"{timing.ratio:.2f}x the time of fp32 ({timing.interval})"
    if timing.different:
        return [f"int8 is slower than fp32 here: {ratio}"]
    return [f"int8 is not measurably faster than fp32 here: {ratio}"]
