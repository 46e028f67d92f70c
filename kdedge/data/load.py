"""Load a task: read and check rows, shorten texts, draw splits, resolve overlap, limit."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from kdedge.data.label_names import Names, known_names, names_of_train
from kdedge.data.labels import are_switches, label_array
from kdedge.data.overlap import OverlapRule, Part, conflict_note, resolve_overlap
from kdedge.data.shares import draw_share
from kdedge.data.sources import DataSource
from kdedge.data.task import Overlap, Split, Task
from kdedge.errors import DataError, MachineError, UsageError
from kdedge.io.faults import Faults
from kdedge.io.table import Table, checked_texts
from kdedge.recipe import DataConfig, TaskConfig
from kdedge.run.progress import SILENT, Progress
from kdedge.runtime.cleaning import CountingCleaner, changes
from kdedge.runtime.metrics import DEFAULT_METRIC, METRICS, metric_fits
from kdedge.runtime.spec import Kind, TaskSpec
from kdedge.wording import listed

SPLIT_SALTS = {"validation": "select", "test": "report"}
"""Salt of the draw for each split. A changed salt draws other texts and other results."""


def load_task(
    data: DataConfig, task: TaskConfig, *, name: str, seed: int, progress: Progress = SILENT
) -> Task:
    """Load the three splits of a recipe and check every row.

    Raises:
        UsageError: If the recipe names something that does not exist or does not fit.
        DataError: If rows are malformed; lists up to ten with file, line, value and remedy.
        MachineError: If the data cannot be read or downloaded here.
    """
    metric = _metric(task)
    try:
        loaded = _load(data, task, name, metric, seed)
    except OSError as error:
        raise MachineError(
            "the data cannot be read",
            str(error),
            "check the folder, its access rights and the length of its name",
        ) from error
    progress.say(_summary(loaded))
    for note in loaded.notes:
        progress.say(f"data: {note}")
    return loaded


def _load(data: DataConfig, task: TaskConfig, name: str, metric: str, seed: int) -> Task:
    _reject_shared_columns(data)
    source = DataSource.of(data)
    _reject_shared_rows(source)
    train, reader = _read_train(source, task)
    names = reader.names
    if metric == "f1" and len(names) != 2:
        raise UsageError(
            "f1 measures two classes, the second against the first",
            f"{len(names)} labels",
            'set task.metric to "macro_f1" or "micro_f1"',
        )
    train, test = _split_off(train, data.test, "test", reader, seed)
    train, validation = _split_off(train, data.validation, "validation", reader, seed)
    parts, notes, overlaps = _resolve_overlaps(train, validation, test, data.overlap)
    notes += reader.cleaning_note()
    _check_classes(parts, task, names)
    limited, beyond_limit = _limit(parts[0], data.limit, seed)
    notes += _limit_note(limited, parts, task, names)
    if task.labels is None:
        notes += _unused_index_note(parts[0], task, names)
    has_pairs = data.pair is not None
    spec = TaskSpec(name, task.kind, names, metric, has_pairs, task.threshold or 0.5)
    splits = (limited.split, parts[1].split, parts[2].split)
    return Task(spec, *splits, tuple(notes), beyond_limit, tuple(overlaps))


def _metric(task: TaskConfig) -> str:
    metric = task.metric or DEFAULT_METRIC[task.kind]
    if not metric_fits(metric, task.kind):
        fitting = ", ".join(name for name in METRICS if metric_fits(name, task.kind))
        raise UsageError(
            f"task.metric does not measure a {task.kind}", repr(metric), f"use one of {fitting}"
        )
    return metric


def _reject_shared_columns(data: DataConfig) -> None:
    """Raise UsageError if two of text, pair and label are the same column."""
    keys: dict[str, str] = {}
    for key, column in (("text", data.text), ("pair", data.pair), ("label", data.label)):
        if column is None:
            continue
        if column in keys:
            raise UsageError(
                f"data.{keys[column]} and data.{key} are the same column",
                repr(column),
                f"set data.{key} to a column of its own",
            )
        keys[column] = key


def _reject_shared_rows(source: DataSource) -> None:
    """Raise UsageError if two splits are the same file or the same split of the source."""
    data = source.data
    keys: dict[str, str] = {}
    for key, split in (
        ("train", data.train),
        ("validation", data.validation),
        ("test", data.test),
    ):
        if not isinstance(split, str):
            continue
        identity = source.identity(split, key)
        if identity in keys:
            raise UsageError(
                f"data.{keys[identity]} and data.{key} are the same rows",
                repr(split),
                f"give data.{key} a split of its own, or a share of train such as 0.1",
            )
        keys[identity] = key


def _read_train(source: DataSource, task: TaskConfig) -> tuple[Part, _SplitReader]:
    table = source.read(source.data.train, "train")
    _reject_empty(table, "train")
    faults = Faults(table.origin)
    values = table.column(source.data.label, "data.label")
    names = known_names(task.kind, task.labels, source.folder, table)
    switches = task.kind == "multilabel" and are_switches(values, names)
    if names is None and switches:
        names = tuple(str(index) for index in range(len(values[0])))
    if names is None:
        names = names_of_train(task.kind, table, values, faults)
    cleaner = CountingCleaner(source.data.clean_labelled)
    reader = _SplitReader(source, task.kind, names, switches, cleaner)
    return reader.checked(table, "train", faults), reader


def _reject_empty(table: Table, role: str) -> None:
    if not len(table):
        raise DataError(
            f"{table.origin}: no rows in {role}",
            "0 rows",
            f"fill it, or set data.{role} to another split or file",
        )


@dataclass(frozen=True)
class _SplitReader:
    """Reads splits; all use the label names of the training split."""

    source: DataSource
    kind: Kind
    names: Names
    switches: bool
    cleaner: CountingCleaner

    def read(self, split: str, role: str) -> Part:
        table = self.source.read(split, role)
        _reject_empty(table, role)
        return self.checked(table, role, Faults(table.origin))

    def checked(self, table: Table, role: str, faults: Faults) -> Part:
        """Return the rows as a split. Raises DataError that lists the faults of the table."""
        data = self.source.data
        texts = self._texts(table, data.text, "data.text", faults)
        pairs = None
        if data.pair is not None:
            pairs = self._texts(table, data.pair, "data.pair", faults)
        values = table.column(data.label, "data.label")
        labels = label_array(self.kind, self.names, table, values, faults, switches=self.switches)
        faults.raise_if_any()
        split = Split(texts, pairs, labels)
        return Part(role, split, table, split)

    def _texts(self, table: Table, column: str, key: str, faults: Faults) -> tuple[str, ...]:
        texts = checked_texts(table, column, key, faults)
        if faults.count:  # Then a text may be something else, and the caller raises.
            return tuple(texts)
        opening = _opening_words(texts, self.source.data)
        if not self.cleaner.changed:
            return opening
        return tuple(map(self.cleaner.clean, opening))

    def cleaning_note(self) -> list[str]:
        """Return a note on how many texts each step of cleaning has changed so far."""
        counts = self.cleaner.counts()
        if not counts:
            return []
        return [f"cleaning of {self.cleaner.texts:,} labelled texts changed: {changes(counts)}."]


def _opening_words(texts: list[str], data: DataConfig) -> tuple[str, ...]:
    words = data.first_words
    if words is None:
        return tuple(texts)
    return tuple(" ".join(text.split(None, words)[:words]) for text in texts)


def _split_off(
    train: Part, split: str | float, role: str, reader: _SplitReader, seed: int
) -> tuple[Part, Part]:
    """Return (train, the split `role`); if `split` is a share, it is drawn from train."""
    if isinstance(split, str):
        return train, reader.read(split, role)
    _reject_nothing_left(train)
    rest, drawn = draw_share(train.split, split, seed, SPLIT_SALTS[role])
    return replace(train, split=rest), replace(train, role=role, split=drawn)


def _resolve_overlaps(
    train: Part, validation: Part, test: Part, rule: OverlapRule
) -> tuple[tuple[Part, Part, Part], list[str], list[Overlap]]:
    """Apply data.overlap; return the three parts, notes, and the counts of shared texts."""
    notes = conflict_note(train)
    of_train = resolve_overlap(train, [validation, test], rule)
    of_validation = resolve_overlap(validation, [test], rule)
    notes += of_train.notes + of_validation.notes
    overlaps = of_train.overlaps + of_validation.overlaps
    return (of_train.part, of_validation.part, test), notes, overlaps


def _reject_nothing_left(part: Part) -> None:
    if not len(part.split):
        raise DataError(
            f"no examples are left in {part.role}",
            part.table.origin,
            "give more examples, smaller shares, or a split of its own",
        )


def _check_classes(parts: tuple[Part, Part, Part], task: TaskConfig, names: Names) -> None:
    """Raise DataError if a split is empty or train lacks a class of another split."""
    for part in parts:
        _reject_nothing_left(part)
    train = parts[0]
    if not names:
        raise DataError(
            "no example of train has a label",
            train.table.origin,
            "fill in labels, or name them in task.labels",
        )
    _reject_single_label(train, task, names, "give examples of at least two labels")
    if task.kind == "regression":
        return
    for part in parts[1:]:
        absent = _classes(part.split.labels) - _classes(train.split.labels)
        if absent:
            raise DataError(
                f"{part.role} has classes that train lacks",
                f"{_listed(absent, names)} in {part.table.origin}",
                "give train examples of them, or remove them",
            )


def _reject_single_label(train: Part, task: TaskConfig, names: Names, hint: str) -> None:
    labels = train.split.labels
    if task.kind == "multilabel" or len(np.unique(labels)) > 1:
        return
    label = names[int(labels[0])] if task.kind == "classification" else str(labels[0])
    raise DataError(
        "all examples of train have the same label",
        f"every label is {label!r} in {train.table.origin}",
        hint,
    )


def _unused_index_note(train: Part, task: TaskConfig, names: Names) -> list[str]:
    """Return a note if whole numbers as labels leave an index without any example."""
    if task.kind == "regression":
        return []
    unused = set(range(len(names))) - _classes(train.split.labels)
    if not unused:
        return []
    return [
        f"train has no example of {_listed(unused, names)}, but the students will predict it: "
        "whole numbers are indices from 0; if yours are names, write them in quotes"
    ]


def _limit_note(
    train: Part, parts: tuple[Part, Part, Part], task: TaskConfig, names: Names
) -> list[str]:
    """Return a note if data.limit left train without a class. Raises DataError for one label."""
    if len(train.split) == len(parts[0].split):
        return []
    _reject_single_label(train, task, names, "raise data.limit")
    if task.kind == "regression":
        return []
    evaluated = _classes(parts[1].split.labels) | _classes(parts[2].split.labels)
    absent = evaluated - _classes(train.split.labels)
    return [f"data.limit left train without {_listed(absent, names)}."] if absent else []


def _classes(labels: np.ndarray) -> set[int]:
    indices = np.unique(labels) if labels.ndim == 1 else np.flatnonzero(labels.any(0))
    return {int(index) for index in indices}


def _listed(classes: set[int], names: Names) -> str:
    """Return the names of up to ten classes."""
    return listed([names[index] for index in sorted(classes)], 10)


def _limit(train: Part, limit: int | None, seed: int) -> tuple[Part, Split | None]:
    """Draw `limit` examples by the seed; return them and the others, each in file order."""
    if limit is None or limit >= len(train.split):
        return train, None
    order = np.random.default_rng(seed).permutation(len(train.split))
    drawn = train.split.take(np.sort(order[:limit]))
    others = train.split.take(np.sort(order[limit:]))
    return replace(train, split=drawn), others


def _summary(task: Task) -> str:
    sizes = f"{len(task.train)} train, {len(task.validation)} validation, {len(task.test)} test"
    kind: str = task.spec.kind
    if kind != "regression":
        kind += f", {len(task.spec.labels)} labels"
    return f"data: {sizes}; {kind}, {task.spec.metric}"
