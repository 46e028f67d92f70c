"""Write examples as lines of text, the input format of the causal language model.

A line is `label TAB text NEWLINE second text`; label and second text are optional.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kdedge.data.task import Split
from kdedge.runtime.spec import TaskSpec


def join_line(text: str, pair: str | None = None, label: str | None = None) -> str:
    """Return one example as a line; white space inside a text becomes single spaces."""
    line = _single_spaced(text)
    if label is not None:
        line = f"{_single_spaced(label)}\t{line}"
    if pair is not None:
        line += f"\n{_single_spaced(pair)}"
    return line


def split_line(line: str) -> tuple[str, str | None]:
    """Return text and second text of a line; None if the line has no second text."""
    without_label = line.rpartition("\t")[2]
    text, newline, pair = without_label.partition("\n")
    return _single_spaced(text), _single_spaced(pair) if newline else None


def label_name(spec: TaskSpec, label: Any) -> str:
    """Return the word that stands for a label: class name, list of names or rounded score."""
    if spec.kind == "classification":
        return spec.labels[int(label)]
    if spec.kind == "multilabel":
        names = [name for name, value in zip(spec.labels, label, strict=True) if value]
        return ", ".join(names) or "none"
    return f"{float(label):.0f}"


def task_lines(split: Split, spec: TaskSpec, seed: int) -> list[str]:
    """Return each example as a line; a random half of the lines begins with the label."""
    has_label = np.random.default_rng(seed).random(len(split)) < 0.5
    lines = []
    for row, text in enumerate(split.texts):
        pair = split.pairs[row] if split.pairs else None
        label = label_name(spec, split.labels[row]) if has_label[row] else None
        lines.append(join_line(text, pair, label))
    return lines


def _single_spaced(text: str) -> str:
    return " ".join(text.split())
