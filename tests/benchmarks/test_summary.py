"""The one sentence of a report: which student it names, and what it says about it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from kdedge.benchmarks.report import Report
from kdedge.benchmarks.retention import Retention, Verdict
from kdedge.benchmarks.row import Row
from kdedge.benchmarks.summary import duration, file_size, headline, summary
from reports import CPU, report, row, timings


def students(*verdicts: Verdict) -> Report:
    """A teacher, and students a, b, c, each twice as slow and 1 point better than the last."""
    rows = [report().rows[0]]
    for number, verdict in enumerate(verdicts):
        retention = Retention(0.9 + number / 100, 0.88, 0.99, verdict)
        student = row("abc"[number], "onnx", "int8", CPU, seconds=1e-3 * 2**number, value=0.8)
        rows.append(replace(student, retention=retention))
    return replace(report(), rows=tuple(rows))


@pytest.mark.parametrize(
    ("verdicts", "named"),
    [
        (("inconclusive", "retained", "retained"), "b"),
        (("inconclusive", "inconclusive"), "a"),
        (("not retained", "inconclusive"), "b"),
        (("not retained", "not retained", "not retained"), "c"),
    ],
)
def test_the_fastest_student_of_the_best_verdict_is_named(
    verdicts: tuple[Verdict, ...], named: str
) -> None:
    chosen = headline(students(*verdicts))
    assert chosen is not None and chosen.subject == named


def test_without_any_interval_the_best_student_is_named() -> None:
    """The teacher's score is near 0: the fastest student may predict one label for all texts."""
    example = students("inconclusive", "inconclusive")
    undefined = Retention(None, None, None, "inconclusive")
    teacher, fast, good = example.rows
    fast = replace(fast, retention=undefined, value=0.1)
    good = replace(good, retention=undefined, value=0.5)
    chosen = headline(replace(example, rows=(teacher, fast, good)))
    assert chosen is not None and chosen.subject == "b"


def test_the_sentence_has_retention_speed_size_and_the_baseline() -> None:
    example = report()
    baseline = replace(
        example.rows[2], subject="student baseline", kind="baseline", form="torch", single=None
    )
    example = replace(example, rows=(*example.rows, baseline))
    assert summary(example) == (
        "student onnx int8 retains 96.7 % of the teacher's accuracy (95 % interval 95.7 to 97.7 %),"
        " is 40 times as fast and 431 times as small."
        " The same student trained on the labels alone reaches 97.8 %."
    )


def only_student(**changes: object) -> Report:
    """A report on one bundle without its teacher."""
    student = replace(report().rows[3], **changes)  # type: ignore[arg-type]
    return replace(report(), rows=(student,), teacher={})


def test_without_a_teacher_the_sentence_has_absolute_numbers() -> None:
    assert summary(only_student(retention=None, single=timings(1e-3, seed=3))) == (
        "student onnx int8 reaches accuracy 0.8700, classifies a text in 1.01 ms"
        " and has a file of 211 kB."
    ).replace("1.01", duration(timings(1e-3, seed=3).p50).removesuffix(" ms"))
    assert summary(only_student(retention=None, value=None)).startswith(
        "student onnx int8 classifies a text in"
    )


def test_a_slower_and_larger_student_is_called_so() -> None:
    example = report()
    teacher = example.rows[0]
    slow: Row = replace(example.rows[3], single=timings(60e-3), bytes=182_000_000)
    sentence = summary(replace(example, rows=(teacher, slow)))
    assert "takes 1.5 times as long and is 2.0 times as large." in sentence


def test_nothing_timed_gives_no_sentence() -> None:
    assert summary(replace(report(), rows=report().rows[:2])) == ""
    assert summary(replace(report(), rows=())) == ""


def test_numbers_are_written_for_people() -> None:
    seconds = (439e-6, 3.754e-3, 20e-3, 0.2, 1.2, 95.0)
    assert [duration(value) for value in seconds] == [
        "439 µs", "3.75 ms", "20.0 ms", "200 ms", "1.20 s", "95.0 s",
    ]  # fmt: skip
    sizes = (211_000, 15_821_081, 438_000_000)
    assert [file_size(count) for count in sizes] == ["211 kB", "15.8 MB", "438 MB"]


CUDA = "CUDAExecutionProvider"


def on_gpu(*more: Row) -> Report:
    """A report whose student runs on a GPU, where it takes 1 ms; the teacher in torch: 40 ms."""
    student = row("student", "onnx", "fp16", CUDA, seconds=1e-3, value=0.8, bytes=None)
    return replace(report(), rows=(report().rows[0], *more, student))


def test_a_student_on_a_gpu_is_compared_with_the_teacher_there() -> None:
    torch = row("teacher", "torch", "fp32", "torch cuda", seconds=5e-3, value=0.9)
    sentence = summary(on_gpu(torch))
    assert sentence.startswith("student onnx fp16 cuda ")
    assert "is 5.0 times as fast as the teacher on the GPU." in sentence


def test_other_devices_of_student_and_teacher_are_named() -> None:
    assert "is 40 times as fast on the GPU as the teacher on the CPU." in summary(on_gpu())


def test_the_fastest_form_of_the_teacher_is_that_of_the_device() -> None:
    """A library on the CPU is named only if the teacher was not timed on the GPU."""
    peer = row("optimum", "onnx", "int8", CPU, seconds=4e-3, value=0.9)
    peer = replace(peer, kind="peer", is_form_of_teacher=True)
    torch = row("teacher", "torch", "fp32", "torch cuda", seconds=5e-3, value=0.9)
    assert "fastest form" not in summary(on_gpu(torch, peer))
    assert summary(on_gpu(peer)).endswith(
        "It is 4.0 times as fast as the teacher's fastest form, optimum on the CPU."
    )
    example = report()
    faster = replace(torch, single=timings(1e-4))
    rows = (example.rows[0], faster, peer, example.rows[3])
    assert summary(replace(example, rows=rows)).endswith(
        "It is 4.0 times as fast as the teacher's fastest form, optimum."
    )
