"""A small report with a teacher, a student, a label-only baseline and simple classifiers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from kdedge.benchmarks import machine
from kdedge.benchmarks.footprint import Footprint
from kdedge.benchmarks.report import Report, Row
from kdedge.benchmarks.retention import REFERENCE, Retention

from kdedge.evaluation.timing import Timings


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
