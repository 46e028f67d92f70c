"""Loads a task: read, check, keep the opening words, draw shares, look for equal texts, limit."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from kdedge.data.check import Faults, Table, checked_texts
from kdedge.data.labels import Names, are_switches, known_names, label_array, names_of_train
from kdedge.data.overlap import Overlap, Part, conflict_note, without_overlap
from kdedge.data.shares import draw_share
from kdedge.data.sources import Source
from kdedge.data.task import Split, Task
from kdedge.errors import DataError, MachineError, UsageError
from kdedge.recipe import DataConfig, TaskConfig
from kdedge.run.progress import SILENT, Progress
from kdedge.runtime.metrics import DEFAULT_METRIC, METRICS, metric_fits
from kdedge.runtime.spec import Kind, TaskSpec

SPLIT_SALTS = {"validation": "select", "test": "report"}
"""Salt of the draw for each split. A change draws other texts, and no committed table holds."""


def load_task(
    data: DataConfig, task: TaskConfig, *, name: str, seed: int, progress: Progress = SILENT
) -> Task:
    """The three splits of a recipe, every row checked.

    Raises UsageError for what the recipe asks wrongly, DataError for rows that cannot be trusted (up to ten with
    file, line, column, value and remedy, and the count), MachineError for data that cannot be had from here.
    """
    metric = _metric(task)
    try:
        loaded = _loaded(data, task, name, metric, seed)
    except OSError as error:
        raise MachineError(
            "the data cannot be reached",
            str(error),
            "check the folder, its rights and the length of its name",
        ) from error
    for line in (_summary(loaded), *loaded.notes):
        progress.say(line)
    return loaded


def _loaded(data: DataConfig, task: TaskConfig, name: str, metric: str, seed: int) -> Task:
    _reject_shared_columns(data)
    source = Source.of(data)
    _reject_shared_roles(source)
    train, read = _read_train(source, task)
    names = read.names
    if metric == "f1" and len(names) != 2:
        raise UsageError(
            "f1 measures two classes, the second against the first",
            f"{len(names)} labels",
            'set task.metric to "macro_f1" or "micro_f1"',
        )
    train, test = _part(train, data.test, "test", read, seed)
    train, validation = _part(train, data.validation, "validation", read, seed)
    parts, notes = _apart(train, validation, test, data.overlap)
    _check_classes(parts, task, names)
    train = _limited(parts[0], data.limit, seed)
    notes += _limit_note(train, parts, task, names)
    spec = TaskSpec(name, task.kind, names, metric, data.pair is not None)
    return Task(spec, train.split, parts[1].split, parts[2].split, tuple(notes))


def _metric(task: TaskConfig) -> str:
    metric = task.metric or DEFAULT_METRIC[task.kind]
    if not metric_fits(metric, task.kind):
        fitting = ", ".join(name for name in METRICS if metric_fits(name, task.kind))
        raise UsageError(
            f"task.metric does not measure a {task.kind}", repr(metric), f"use one of {fitting}"
        )
    return metric


def _reject_shared_columns(data: DataConfig) -> None:
    """Raises UsageError when one column would be both text and answer, or both texts of a pair."""
    asked: dict[str, str] = {}
    for key, column in (("text", data.text), ("pair", data.pair), ("label", data.label)):
        other = asked.setdefault(column, key) if column is not None else key
        if other != key:
            raise UsageError(
                f"data.{other} and data.{key} are the same column",
                repr(column),
                f"set data.{key} to a column of its own",
            )


def _reject_shared_roles(source: Source) -> None:
    """Raises UsageError when one file or split would both teach and judge."""
    roles: dict[str, str] = {}
    for key, split in (
        ("train", source.data.train),
        ("validation", source.data.validation),
        ("test", source.data.test),
    ):
        if isinstance(split, str):
            other = roles.setdefault(source.identity(split, key), key)
            if other != key:
                step = f"give data.{key} a split of its own, or a share of train such as 0.1"
                raise UsageError(
                    f"data.{other} and data.{key} are the same rows", repr(split), step
                )


def _read_train(source: Source, task: TaskConfig) -> tuple[Part, _Reader]:
    table = source.read(source.data.train, "train")
    _reject_empty(table, "train")
    faults = Faults(table.origin)
    values = table.column(source.data.label, "data.label")
    names = known_names(task.kind, task.labels, source.folder, table)
    switches = task.kind == "multilabel" and are_switches(values, names)
    if names is None:
        names = (
            tuple(map(str, range(len(values[0]))))
            if switches
            else names_of_train(task.kind, table, values, faults)
        )
    read = _Reader(source, task.kind, names, switches)
    return read.checked(table, "train", faults), read


def _reject_empty(table: Table, role: str) -> None:
    if not len(table):
        raise DataError(
            f"{table.origin}: no rows in {role}",
            "0 rows",
            f"fill it, or set data.{role} to another split or file",
        )


@dataclass(frozen=True)
class _Reader:
    """Reads a role once the labels have names."""

    source: Source
    kind: Kind
    names: Names
    switches: bool

    def read(self, split: str, role: str) -> Part:
        table = self.source.read(split, role)
        _reject_empty(table, role)
        return self.checked(table, role, Faults(table.origin))

    def checked(self, table: Table, role: str, faults: Faults) -> Part:
        """The rows as a split, texts cut to their opening words. Raises DataError that tells all faults of the table."""
        data = self.source.data
        texts = checked_texts(table, data.text, "data.text", faults)
        pairs = None if data.pair is None else checked_texts(table, data.pair, "data.pair", faults)
        labels = label_array(
            self.kind,
            self.names,
            table,
            table.column(data.label, "data.label"),
            faults,
            switches=self.switches,
        )
        faults.raise_if_any()
        split = Split(
            _opening(texts, data.first_words),
            None if pairs is None else _opening(pairs, data.first_words),
            labels,
        )
        return Part(role, split, table, split)


def _opening(texts: list[str], words: int | None) -> tuple[str, ...]:
    return (
        tuple(texts)
        if words is None
        else tuple(" ".join(text.split(None, words)[:words]) for text in texts)
    )


def _part(
    train: Part, wanted: str | float, role: str, read: _Reader, seed: int
) -> tuple[Part, Part]:
    """(train, the split or share `role`); a share leaves train."""
    if isinstance(wanted, str):
        return train, read.read(wanted, role)
    _reject_nothing_left(train)
    stays, drawn = draw_share(train.split, wanted, seed, SPLIT_SALTS[role])
    return replace(train, split=stays), replace(train, role=role, split=drawn)


def _apart(
    train: Part, validation: Part, test: Part, rule: Overlap
) -> tuple[tuple[Part, Part, Part], list[str]]:
    """The parts with equal texts dropped, rejected or noted, as data.overlap says."""
    notes = conflict_note(train)
    train, more = without_overlap(train, [validation, test], rule)
    notes += more
    validation, more = without_overlap(validation, [test], rule)
    return (train, validation, test), notes + more


def _reject_nothing_left(part: Part) -> None:
    if not len(part.split):
        raise DataError(
            f"no examples are left in {part.role}",
            part.table.origin,
            "give more examples, smaller shares, or a split of its own",
        )


def _check_classes(parts: tuple[Part, Part, Part], task: TaskConfig, names: Names) -> None:
    """Raises DataError when a part is empty, train teaches one answer alone, or another part asks for a class train lacks."""
    for part in parts:
        _reject_nothing_left(part)
    train = parts[0].split.labels
    if not names:
        raise DataError(
            "no example of train has a label",
            f"{parts[0].table.origin}",
            "fill in labels, or name them in task.labels",
        )
    _reject_one_answer(parts[0], task, names, "give examples of at least two answers")
    for part in parts[1:] if task.kind != "regression" else ():
        absent = sorted(_classes(part.split.labels) - _classes(train))
        if absent:
            told = ", ".join(names[i] for i in absent[:10]) + (
                f" and {len(absent) - 10} more" if len(absent) > 10 else ""
            )
            raise DataError(
                f"{part.role} has classes that train lacks",
                f"{told} in {part.table.origin}",
                "give train examples of them, or take them out",
            )


def _reject_one_answer(train: Part, task: TaskConfig, names: Names, hint: str) -> None:
    labels = train.split.labels
    if task.kind != "multilabel" and len(np.unique(labels)) < 2:
        only = names[int(labels[0])] if task.kind == "classification" else str(labels[0])
        raise DataError(
            "train holds one answer alone",
            f"every label is {only!r} in {train.table.origin}",
            hint,
        )


def _limit_note(
    train: Part, parts: tuple[Part, Part, Part], task: TaskConfig, names: Names
) -> list[str]:
    """A note when data.limit left classes of validation or test without an example. Raises DataError when it left one answer."""
    if len(train.split) == len(parts[0].split):
        return []
    _reject_one_answer(train, task, names, "raise data.limit")
    if task.kind == "regression":
        return []
    lost = sorted(
        (_classes(parts[1].split.labels) | _classes(parts[2].split.labels))
        - _classes(train.split.labels)
    )
    told = ", ".join(names[i] for i in lost[:10]) + (
        f" and {len(lost) - 10} more" if len(lost) > 10 else ""
    )
    return [f"data.limit left train without {told}."] if lost else []


def _classes(labels: np.ndarray) -> set[int]:
    return {
        int(i) for i in (np.unique(labels) if labels.ndim == 1 else np.flatnonzero(labels.any(0)))
    }


def _limited(train: Part, limit: int | None, seed: int) -> Part:
    """`limit` examples drawn by the seed, in file order."""
    if limit is None or limit >= len(train.split):
        return train
    chosen = np.random.default_rng(seed).permutation(len(train.split))[:limit]
    return replace(train, split=train.split.take(np.sort(chosen)))


def _summary(task: Task) -> str:
    sizes = f"{len(task.train)} train, {len(task.validation)} validation, {len(task.test)} test"
    return f"data: {sizes}; {task.spec.kind}, {len(task.spec.labels)} labels, {task.spec.metric}"
