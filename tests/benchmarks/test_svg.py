"""Charts as SVG."""

from __future__ import annotations

import altair as alt
import pytest
from kdedge.benchmarks.pictures.svg import to_svg


@pytest.mark.parametrize("odd", ["neg\x08ative", "a\x00b", "a\uffffb", "a\ud800b"])
def test_a_text_that_xml_cannot_hold_is_escaped(odd: str) -> None:
    """The converter would end the process."""
    rows = [{"label": odd, "count": 1}, {"label": "ä & <b>", "count": 2}]
    chart = alt.Chart(alt.Data(values=rows)).mark_bar().encode(x="count:Q", y="label:N")
    svg = to_svg(chart, "bars", "Bars")
    assert odd.encode("unicode_escape").decode("ascii") in svg
    assert "ä &amp; &lt;b&gt;" in svg
