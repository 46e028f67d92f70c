"""A small report with a teacher, a student, a label-only baseline and simple classifiers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from kdedge.benchmarks import machine
from kdedge.benchmarks.equivalence.compute import Evidence, equivalence_of
from kdedge.benchmarks.equivalence.disagreements import with_disagreements
from kdedge.benchmarks.equivalence.quality import quality_classes
from kdedge.benchmarks.equivalence.shares import share_interval
from kdedge.benchmarks.equivalence.text_changes import Robustness
from kdedge.benchmarks.examples import Examples
from kdedge.benchmarks.footprint import Footprint
from kdedge.benchmarks.report import Report
from kdedge.benchmarks.retention import REFERENCE, Retention
from kdedge.benchmarks.row import Row
from kdedge.benchmarks.subjects import Subject

from kdedge.evaluation.timing import Timings
from kdedge.runtime.spec import TaskSpec


def timings(seconds: float, seed: int = 0) -> Timings:
    generator = np.random.default_rng(seed)
    return Timings(tuple(seconds * generator.lognormal(0, 0.1, 8) for _ in range(25)))


def row(
    subject: str,
    form: str,
    precision: str,
    provider: str,
    *,
    seconds: float,
    value: float,
    **more: object,
) -> Row:
    example = Row(
        subject,
        "model",
        form,
        precision,
        provider,
        threads=1,
        batch=32,
        value=value,
        retention=Retention(
            value / 0.9,
            value / 0.9 - 0.01,
            value / 0.9 + 0.01,
            "inconclusive",
            "inconclusive: 300 texts are too few",
        ),
        single=timings(seconds),
        model=timings(seconds * 0.9),
        batched=timings(seconds * 16),
        bytes=91_000_000,
        footprint=Footprint(2.5, 0.8, 1234.5),
    )
    return replace(example, **more)  # type: ignore[arg-type]


CPU = "CPUExecutionProvider"


def report(name: str = "student", label_name: str = "accuracy") -> Report:
    rows = (
        row("teacher", "torch", "fp32", "torch cpu", seconds=40e-3, value=0.9, retention=REFERENCE),
        row("teacher", "onnx", "int8", CPU, seconds=4e-3, value=0.89),
        row(name, "onnx", "fp32", CPU, seconds=2e-3, value=0.88),
        row(name, "onnx", "int8", CPU, seconds=1e-3, value=0.87, bytes=211_000),
        Row(
            "majority class",
            "baseline",
            "simple",
            None,
            None,
            value=0.2,
            retention=Retention(0.222, 0.2, 0.24, "not retained"),
        ),
    )
    described = machine.describe(1)
    task = {
        "name": "toy",
        "kind": "classification",
        "metric": label_name,
        "pair": False,
        "texts": 300,
        "measured": True,
    }
    teacher = {"model": "bert-base", "metric": label_name, "value": 0.9}
    return Report(
        task,
        teacher,
        described,
        rows,
        0.99,
        "2026-01-01T00:00:00+00:00",
        "0.1.0",
        "kdedge bench runs/toy",
        ("general note",),
    )


def evidence(texts: int = 300) -> Evidence:
    """Texts of 4 to 60 tokens in three classes, with a teacher that is right on 90 %."""
    generator = np.random.default_rng(2)
    labels = generator.integers(0, 3, texts)
    teacher = generator.normal(size=(texts, 3)) + 3 * np.eye(3)[labels]
    spec = TaskSpec("toy", "classification", ("a", "b", "c"), "accuracy", pair=False)
    examples = Examples([f"<i>text</i> {number} & more" for number in range(texts)], None, labels)
    return Evidence(spec, examples, generator.integers(4, 61, texts), teacher.astype(np.float32))


def compared_report(name: str = "student", *, shows_texts: bool = True) -> Report:
    """The report of `report`, with every figure of equivalence."""
    example = report(name)
    known = evidence()
    assert known.teacher is not None
    generator = np.random.default_rng(3)
    rows, subjects = [], []
    for each in example.rows:
        logits = known.teacher
        if each.label != "teacher torch fp32":
            noise = generator.normal(size=logits.shape).astype(np.float32)
            logits = logits + noise * (0.2 if each.is_teacher else 1.0)
        subject = Subject(
            each.subject, "model", "onnx", each.precision, logits=logits, temperature=1.4
        )
        found = equivalence_of(replace(subject, form=each.form), known)
        changes = tuple(
            Robustness(change, 100, share, *share_interval(round(100 * share), 100))
            for change, share in (("typos", 0.03), ("casing", 0.0), ("truncation", 0.12))
        )
        found = replace(found, quality=quality_classes(each.retention), robustness=changes)
        rows.append(replace(each, equivalence=found if each.kind == "model" else None))
        subjects.append(subject)
    tokens = tuple(known.tokens[:160].tolist())
    example = replace(example, rows=tuple(rows), timed_tokens=tokens)
    return with_disagreements(example, subjects, known) if shows_texts else example
