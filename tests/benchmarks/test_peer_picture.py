"""The picture of the README: it shows every subject, and it is drawn from the committed results."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from _peer_picture import NAMES, draw, points_of
from peers import PICTURE, PICTURED, RESULTS

CIRCLE = re.compile(r'"circle" transform="translate\(([\d.]+),([\d.]+)\)" d="M([\d.]+),0')
"""x, y and radius of a circle in an SVG of altair."""

REPORT = RESULTS / f"peers-{PICTURED}.json"


def row(subject: str, kind: str, size: int, *, p50: float, retention: float) -> dict[str, object]:
    return {"subject": subject, "kind": kind, "bytes": size, "p50_us": p50, "retention": retention}


ROWS = [
    row("teacher", "model", 80, p50=8000, retention=1.0),
    row("bilstm", "model", 20, p50=200, retention=0.98),
    row("OpenVINO NNCF int8", "peer", 20, p50=2000, retention=0.99),
    row("fastText", "peer", 40, p50=100, retention=0.9),
]


def texts(svg: str) -> list[str]:
    elements = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    return [element.text or "" for element in elements]


def test_circles_show_time_score_and_size(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(json.dumps({"rows": ROWS}))
    svg = draw(path)
    found = CIRCLE.findall(svg)[: len(ROWS)]
    (teacher, bilstm, openvino, fasttext) = [tuple(map(float, circle)) for circle in found]
    assert fasttext[0] < bilstm[0] < openvino[0] < teacher[0], "faster is further left"
    assert teacher[1] < openvino[1] < bilstm[1] < fasttext[1], "better is further up"
    assert teacher[2] ** 2 == pytest.approx(4 * bilstm[2] ** 2, rel=1e-3), "areas are sizes"
    assert {"kdedge BiLSTM, int8", "fastText", "OpenVINO NNCF int8"} <= set(texts(svg))


def test_colours_tell_students_the_teacher_and_other_libraries_apart() -> None:
    assert [point["kind"] for point in points_of(ROWS)] == ["teacher", "student", "teacher", "peer"]


def test_the_committed_picture_is_that_of_the_committed_results() -> None:
    assert PICTURE.read_text() == draw(REPORT)
    rows = json.loads(REPORT.read_text())["rows"]
    shown = texts(PICTURE.read_text())
    for each in rows:
        assert NAMES.get(each["subject"], each["subject"]) in shown
