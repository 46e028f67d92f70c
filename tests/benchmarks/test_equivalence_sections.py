"""The sections about equivalence: complete, escaped, and only what was measured."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from kdedge.benchmarks.equivalence.compute import Evidence, equivalence_of, left_out
from kdedge.benchmarks.equivalence.disagreements import prediction_text, sharpest
from kdedge.benchmarks.equivalence.sections import sections_of
from kdedge.benchmarks.equivalence.tables import MOST_CLASSES, group_table, shown_groups
from kdedge.benchmarks.examples import Examples
from kdedge.benchmarks.markdown import markdown
from kdedge.benchmarks.page import html_page
from kdedge.benchmarks.pictures import style
from kdedge.benchmarks.pictures.groups import groups
from kdedge.benchmarks.pictures.lengths import median_times, spread
from kdedge.benchmarks.report import Report
from kdedge.benchmarks.subjects import Subject
from reports import compared_report, evidence, report

from kdedge.runtime.spec import TaskSpec


def names(example: Report) -> list[str]:
    return [section.name for section in sections_of(example)]


def test_a_whole_report_has_every_section() -> None:
    expected = ["loyalty", "groups", "reliability", "robustness", "disagreements"]
    assert names(compared_report()) == expected
    assert names(compared_report(shows_texts=False)) == expected[:-1]
    assert names(report()) == []


def test_the_tables_show_what_was_measured() -> None:
    example = compared_report()
    sections = {section.name: section.table for section in sections_of(example)}
    student = example.rows[3].equivalence
    assert student is not None and student.loyalty is not None and student.flips is not None
    row = sections["loyalty"].rows[-1]
    assert row[0] == "student onnx int8"
    assert row[1].startswith(f"{100 * student.loyalty.agreement:.1f} [")
    assert row[3:5] == (str(student.flips.lost), str(student.flips.gained))
    assert row[6:] == ("not met", "not met")
    assert [row[0] for row in sections["loyalty"].rows] == [
        "teacher onnx int8",
        "student onnx fp32",
        "student onnx int8",
    ]
    assert len(sections["groups"].rows) == 3 + 4
    assert sections["robustness"].rows[0][1] == "3.0 [1.0–8.5]"
    document = json.loads(json.dumps(example.to_json()))
    assert document["rows"][3]["equivalence"]["flips"]["lost"] == student.flips.lost
    assert document["timed_tokens"] == list(example.timed_tokens)


@pytest.mark.slow
def test_markdown_and_page_have_the_same_figures() -> None:
    example = compared_report()
    text, page = markdown(example), html_page(example)
    for section in sections_of(example):
        assert f"## {section.heading}" in text and section.heading in page
        assert section.table is not None
        for row in section.table.rows:
            for cell in row[1:]:
                assert cell.replace("[", "\\[").replace("]", "\\]").replace("<", "&lt;") in text
                assert cell.replace("<", "&lt;") in page


@pytest.mark.slow
def test_texts_are_shown_only_if_asked_for_and_stay_text() -> None:
    hidden = compared_report(shows_texts=False)
    for content in (html_page(hidden), markdown(hidden), json.dumps(hidden.to_json())):
        assert "more" not in re.findall(r"text\W+i\W+\d+ \S+ (\w+)", content)
    shown = compared_report()
    page, text = html_page(shown), markdown(shown)
    assert "<i>" not in page + text
    assert page.count("&lt;i&gt;text&lt;/i&gt;") == text.count("&lt;i&gt;text&lt;/i&gt;") == 20


def test_disagreements_are_the_texts_that_differ_most() -> None:
    known = evidence()
    assert known.teacher is not None
    student = known.teacher[:, [1, 0, 2]]
    found = sharpest(known, student, 1.0)
    assert len(found) == 20
    assert [each.sharpness for each in found] == sorted(
        (each.sharpness for each in found), reverse=True
    )
    labels = known.examples.labels
    assert labels is not None
    for each in found:
        row = known.examples.texts.index(each.text)
        assert each.label == "abc"[labels[row]]
        assert each.teacher[0] == "abc"[known.teacher[row].argmax()]
        assert each.student[0] == "abc"[student[row].argmax()]
        assert each.teacher[0] != each.student[0]
    assert sharpest(known, known.teacher, 1.0) == ()


def test_a_prediction_names_label_sets_and_numbers() -> None:
    labels = TaskSpec("toy", "multilabel", ("a", "b"), "micro_f1", pair=False)
    assert prediction_text(labels, np.array([3.0, 2.0]), 1.0) == "a, b"
    assert prediction_text(labels, np.array([-3.0, -2.0]), 1.0) == "no label"
    number = TaskSpec("toy", "regression", ("score",), "pearson", pair=False)
    assert prediction_text(number, np.array([3.25]), 1.0) == "3.250"


# What is not known


def test_without_teacher_or_labels_only_the_rest_is_measured() -> None:
    known = evidence()
    subject = Subject("student", "model", "onnx", "int8", logits=known.teacher, temperature=2.0)
    alone = equivalence_of(subject, replace(known, teacher=None))
    assert alone.loyalty is None and alone.flips is None
    assert alone.raw is not None and alone.calibrated is not None
    assert [group.agreement for group in alone.classes] == [None] * 3
    nothing = replace(known, teacher=None, examples=replace(known.examples, labels=None))
    bare = equivalence_of(subject, nothing)
    assert bare.raw is None and not bare.classes
    lines = " ".join(left_out([], nothing))
    assert "the teacher's logits for" in lines and "no labels" in lines
    assert "changed texts" not in lines
    few = replace(nothing, examples=Examples(["a"] * 12))
    assert "changed texts: fewer than 50 texts" in " ".join(left_out([], few))
    assert "golden texts" in " ".join(left_out([], replace(nothing, golden=True)))
    assert left_out([], known) == []


def test_the_page_says_what_is_not_known() -> None:
    example = replace(report(), left_out=("calibration: the texts have no labels",))
    assert names(example) == ["left-out"]
    assert "calibration: the texts have no labels" in html_page(example)
    assert "calibration: the texts have no labels" in markdown(example)


@pytest.mark.slow
def test_label_sets_and_numbers_have_tables_of_their_own() -> None:
    generator = np.random.default_rng(0)
    for kind, metric, labels in (
        ("multilabel", "micro_f1", ("a", "b", "c")),
        ("regression", "pearson", ("score",)),
    ):
        spec = TaskSpec("toy", kind, labels, metric, pair=False)  # type: ignore[arg-type]
        logits = generator.normal(size=(80, len(labels)))
        truth = (logits > 0).astype(np.float32) if kind == "multilabel" else logits[:, 0]
        known = Evidence(spec, Examples(["x"] * 80, None, truth), np.arange(80), logits)
        noisy = logits + generator.normal(size=logits.shape)
        found = equivalence_of(Subject("student", "model", "onnx", logits=noisy), known)
        example = report()
        rows = list(example.rows)
        rows[3] = replace(rows[3], equivalence=found)
        example = replace(example, rows=tuple(rows), task={**example.task, "kind": kind})
        sections = {section.name: section for section in sections_of(example)}
        header = sections["loyalty"].table.header
        assert ("Hamming loss" in header) == ("labels" in sections) == (kind == "multilabel")
        assert ("Pearson" in header) == (kind == "regression")
        assert found.raw is None and "reliability" not in sections
        assert html_page(example) and markdown(example)


def test_many_classes_are_shortened() -> None:
    known = evidence()
    generator = np.random.default_rng(0)
    spec = TaskSpec("toy", "classification", tuple(map(str, range(40))), "accuracy", pair=False)
    labels = generator.integers(0, 40, 300)
    logits = np.eye(40)[labels] * 4 + generator.normal(size=(300, 40))
    examples = replace(known.examples, labels=labels)
    noisy = logits + generator.normal(size=(300, 40))
    found = equivalence_of(
        Subject("student", "model", "onnx", logits=noisy),
        replace(known, spec=spec, examples=examples, teacher=logits),
    )
    example = report()
    rows = (*example.rows[:3], replace(example.rows[3], equivalence=found))
    example = replace(example, rows=rows)
    assert len(found.classes) == 40
    shown = shown_groups(found)[:MOST_CLASSES]
    hidden = set(found.classes) - set(shown)
    least = max(group.agreement or 0.0 for group in shown)
    assert all((group.agreement or 0.0) >= least for group in hidden)
    table = group_table(example)
    assert table is not None and len(table.rows) == MOST_CLASSES + len(found.lengths)
    assert "lowest agreement" in sections_of(example)[1].explanation


def test_a_teacher_that_fails_on_a_class_is_inside_the_picture() -> None:
    example = compared_report()
    rows = []
    for row in example.rows:
        found = row.equivalence
        if row.is_teacher and found is not None and found.classes:
            failed = replace(found.classes[0], right=0.0)
            found = replace(found, classes=(failed, *found.classes[1:]))
        rows.append(replace(row, equivalence=found))
    chart = groups(replace(example, rows=tuple(rows)), style.WIDE)
    assert chart is not None
    for layer in chart.to_dict()["layer"]:
        place = layer["encoding"].get("x", {})
        if place.get("field") == "right":
            assert place["scale"]["domain"][0] < 0


# Time against length


@pytest.mark.slow
def test_times_belong_to_the_tokens_of_their_texts() -> None:
    example = compared_report()
    row = example.rows[3]
    tokens = np.array(example.timed_tokens)
    assert row.single is not None
    times = row.single.values
    of_length: dict[int, list[float]] = {}
    for number, seconds in enumerate(times.tolist()):
        of_length.setdefault(int(tokens[number % len(tokens)]), []).append(seconds)
    points = median_times(row, tokens)
    assert 2 <= len(points) <= 8
    assert [count for count, _ in points] == sorted(count for count, _ in points)
    first = [time for count in sorted(of_length) for time in of_length[count]]
    assert points[0][1] == pytest.approx(1e3 * np.median(first[: len(times) // 8]), rel=0.1)
    assert 'id="lengths-wide"' in html_page(example)
    assert 'id="lengths-wide"' not in html_page(replace(example, timed_tokens=(7, 7, 7)))


def test_labels_of_lines_keep_their_distance_and_order() -> None:
    places = spread([95.0, 10.0, 12.0, 97.0, 99.0], 5, 100)
    assert sorted(places) == [places[i] for i in (1, 2, 0, 3, 4)]
    assert min(np.diff(sorted(places))) >= 5 and max(places) <= 100
