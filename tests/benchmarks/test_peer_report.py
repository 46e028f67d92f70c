"""The report of the peers' study: its statistics, its table, and its page."""

from __future__ import annotations

import json
import re
from pathlib import Path

import factories
import numpy as np
import pytest
from _gpu_section import gpu_section
from _peer_report import Source, build, markdown_table, versions, write
from _peer_runs import BUNDLE, PEERS, TEACHER, MeasuredModel, Peer
from _peer_values import PeerValues, read_values, write_share
from browser import measure, require_chromium
from kdedge.benchmarks.page import html_page
from kdedge.benchmarks.pictures import draw
from kdedge.benchmarks.summary import summary

from kdedge.errors import CheckFailed
from kdedge.teacher.result import TeacherResult

TASK = factories.single_task()
LABELS = TASK.test.labels
TEXTS = len(LABELS)
MADE = TeacherResult("accuracy", 1.0, 1.0, 100, 32, "a", True, 1.0)
SOURCE = Source("sst2", TASK, MADE, None)


def measured(peer: Peer, folder: Path, *, wrong: int = 0, first: float = 10.0) -> MeasuredModel:
    """Return a subject with `wrong` wrong answers, whose times rise by 1 µs a text."""
    scores = np.eye(2)[LABELS]
    scores[:wrong] = 1 - scores[:wrong]
    times = [first + i for i in range(TEXTS)]
    subject = MeasuredModel(peer.title, peer, folder, 3.0, scores.tolist(), times, 5_000_000)
    (folder / "model.bin").write_bytes(bytes(1_000_000))
    return subject


def rows_of(subject: MeasuredModel, rows: list[int]) -> MeasuredModel:
    scores = [subject.scores[row] for row in rows]
    times = [subject.microseconds[row] for row in rows]
    return MeasuredModel(
        subject.name, subject.peer, subject.model, 3.0, scores, times, subject.package_bytes
    )


def values_of(subjects: list[MeasuredModel], folder: Path) -> list[PeerValues]:
    write_share(folder / "values" / "1of1.json", list(range(TEXTS)), subjects)
    return read_values(folder / "values", TEXTS)


@pytest.fixture
def values(tmp_path: Path) -> list[PeerValues]:
    """A teacher, a student with 1 and a peer with 2 wrong answers, and one that failed."""
    failed = MeasuredModel("SetFit", PEERS[6], tmp_path, problem="no wheel for this Python")
    bundle = Peer(BUNDLE.program, "tinybert", "", BUNDLE.form, BUNDLE.texts)
    subjects = [
        measured(TEACHER, tmp_path, first=1000.0),
        measured(bundle, tmp_path, wrong=1),
        measured(PEERS[-1], tmp_path, wrong=2, first=100.0),
        failed,
    ]
    return values_of(subjects, tmp_path)


def test_shares_give_the_values_of_one_run(tmp_path: Path) -> None:
    subject = measured(TEACHER, tmp_path, wrong=3)
    for number in range(2):
        rows = list(range(number, TEXTS, 2))
        write_share(tmp_path / "two" / f"{number + 1}of2.json", rows, [rows_of(subject, rows)])
    (joined,) = read_values(tmp_path / "two", TEXTS)
    (whole,) = values_of([subject], tmp_path)
    np.testing.assert_array_equal(joined.scores, whole.scores)
    times = [np.sort(np.concatenate(each.rounds)) for each in (joined, whole)]
    np.testing.assert_allclose(*times)
    assert max(map(len, joined.rounds)) <= 20


def test_a_missing_share_is_an_error(tmp_path: Path) -> None:
    subject = measured(TEACHER, tmp_path)
    rows = list(range(0, TEXTS, 2))
    write_share(tmp_path / "half" / "1of2.json", rows, [rows_of(subject, rows)])
    with pytest.raises(CheckFailed, match="not all test texts"):
        read_values(tmp_path / "half", TEXTS)


def test_retention_and_speedup_are_against_the_teacher(values: list[PeerValues]) -> None:
    report = build(SOURCE, values)
    teacher, student, peer = report.to_json()["rows"]
    assert teacher["value"] == 1 and teacher["verdict"] == "reference"
    assert student["retention"] == pytest.approx(1 - 1 / TEXTS, abs=1e-6)
    assert peer["retention"] == pytest.approx(1 - 2 / TEXTS, abs=1e-6)
    assert peer["kind"] == "peer"
    assert student["p50_us"] == pytest.approx(10 + (TEXTS - 1) / 2)
    rounds = [np.arange(start, min(start + 20, TEXTS)) for start in range(0, TEXTS, 20)]
    ratios = [np.median(1000 + block) / np.median(10 + block) for block in rounds]
    assert student["speedup"] == pytest.approx(np.median(ratios), abs=1e-3)


def test_the_teacher_in_another_library_is_a_form_of_the_teacher(tmp_path: Path) -> None:
    bundle = Peer(BUNDLE.program, "tinybert", "", BUNDLE.form, BUNDLE.texts)
    optimum = next(peer for peer in PEERS if peer.program == "optimum_dynamic")
    subjects = [
        measured(TEACHER, tmp_path, first=1000.0),
        measured(bundle, tmp_path, first=10.0),
        measured(optimum, tmp_path, first=400.0),
        measured(PEERS[-1], tmp_path, first=5.0),
    ]
    report = build(SOURCE, values_of(subjects, tmp_path))
    rounds = [np.arange(start, min(start + 20, TEXTS)) for start in range(0, TEXTS, 20)]
    ratio = np.median([np.median(400 + block) / np.median(10 + block) for block in rounds])
    student = report.to_json()["rows"][1]
    assert student["speedup_fastest_teacher"] == pytest.approx(ratio, abs=1e-3)
    assert summary(report).endswith(
        f"It is {ratio:.0f} times as fast as the teacher's fastest form, optimum-onnx int8."
    )


def test_the_file_has_the_right_answers_of_every_subject(tmp_path: Path) -> None:
    subject = measured(TEACHER, tmp_path, wrong=3)
    values_of([subject], tmp_path)
    write(SOURCE, tmp_path / "values", tmp_path)
    right = json.loads((tmp_path / "peers-sst2.json").read_text())["right"]
    assert right == {"teacher": "000" + "1" * (TEXTS - 3)}


def test_versions_are_those_of_the_locked_lists() -> None:
    assert re.search(r"openvino \(nncf 3\.\d+\.\d+, openvino 20\d\d", versions())


def test_the_table_says_what_a_method_learned_from_and_why_one_is_missing(
    values: list[PeerValues],
) -> None:
    table = markdown_table(build(SOURCE, values), values).splitlines()
    assert table[3].startswith(f"| kdedge, tinybert int8 | transfer set | {1 - 1 / TEXTS:.4f} [")
    assert table[3].endswith("| 1.0 | 6 | 3 |")
    assert table[4].startswith("| TF-IDF, more texts | transfer set |")
    assert re.match(r"\| SetFit \| labelled \| not measured: no wheel", table[5])
    assert len({line.count("|") for line in table}) == 1


def test_the_page_shows_peers_in_the_picture_and_in_tables(values: list[PeerValues]) -> None:
    report = build(SOURCE, values)
    pareto = draw(report)["pareto"].wide
    assert "TF-IDF, more texts" in pareto and "var(--peer)" in pareto
    page = html_page(report)
    assert "other library" in page and "SetFit was not measured: no wheel" in page
    assert "What each method needs" in page
    assert "Not measured: no GPU was to be had" in page


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_fits_a_phone(values: list[PeerValues], dark: bool, tmp_path: Path) -> None:
    require_chromium()
    page = tmp_path / "report.html"
    page.write_text(html_page(build(SOURCE, values)), encoding="utf-8")
    measured = measure(page, 360, dark=dark, folder=tmp_path)
    assert measured["innerWidth"] == 360 and measured["scrollWidth"] <= 360
    assert max(measured["pictures"]) <= 360


def test_the_headline_is_a_student(values: list[PeerValues]) -> None:
    assert "tinybert onnx int8 retains" in html_page(build(SOURCE, values))


def test_gpu_results_become_a_table(tmp_path: Path) -> None:
    labelling = {"texts per second by tokens": {"4096": 1234.5678}, "chosen": 4096}
    steps = {
        "environment": {"result": {"device": "NVIDIA X", "machine": {}}, "seconds": 1},
        "labelling": {"result": labelling, "seconds": 2},
        "layers": {"error": "CUDA error"},
    }
    path = tmp_path / "gpu.json"
    path.write_text(json.dumps({"command": "", "steps": steps}))
    section = gpu_section(path)
    assert "NVIDIA X" in section.explanation
    assert section.table is not None
    assert section.table.rows == (
        ("labelling", "texts per second by tokens: 4096", "1,235"),
        ("labelling", "chosen", "4096"),
    )
    assert section.lines == ("layers failed: CUDA error",)
