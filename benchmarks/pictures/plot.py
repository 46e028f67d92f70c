"""The plane of score against latency, and where its points lie in pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from kdedge.benchmarks.pictures import style
from kdedge.benchmarks.pictures.data import Axis, percentiles
from kdedge.benchmarks.report import Report
from kdedge.benchmarks.row import Row
from kdedge.benchmarks.summary import metric_name


@dataclass(frozen=True)
class Plot:
    """Size and axes of a plot, to know where a point lies in pixels."""

    width: int
    height: int
    latency: Axis
    scores: Axis

    @property
    def is_narrow(self) -> bool:
        return self.width < 500

    def point(self, row: Row) -> tuple[float, float]:
        """Return where a row's point lies, in pixels from the top left corner."""
        x = self.latency.log_share(percentiles(row)[0]) * self.width
        return x, self.y(row)

    def y(self, row: Row) -> float:
        assert row.value is not None
        inside = min(max(row.value, self.scores.low), self.scores.high)
        return (1 - self.scores.share(inside)) * self.height

    def radius(self, row: Row, largest: int) -> float:
        """Return the radius of a circle whose area is the size of the file."""
        most = 13.0 if self.is_narrow else 21.0
        return most * float(np.sqrt((row.bytes or 0) / largest))


def score_y(report: Report, plot: Plot) -> Any:
    import altair as alt

    axis = alt.Axis(format=style.score_format(plot.scores), tickCount=6, grid=True)
    title = metric_name(report)
    return alt.Y("score:Q", title=title, scale=style.scale_of(plot.scores), axis=axis)
