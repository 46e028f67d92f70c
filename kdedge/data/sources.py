"""Where a split is: a file, a file of a folder, a folder of class folders, or a split of a hub data set."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdedge.data.check import Table
from kdedge.data.read import READERS, read_file, read_text
from kdedge.errors import MachineError, UsageError
from kdedge.io.paths import resolve_model_path
from kdedge.recipe import DataConfig

HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


def wanted_columns(data: DataConfig) -> tuple[str, ...]:
    """The columns of the recipe."""
    return tuple(name for name in (data.text, data.pair, data.label) if name is not None)


@dataclass(frozen=True)
class Source:
    """data.source, found: a folder, a hub id, or neither when every split is a file."""

    data: DataConfig
    folder: Path | None

    @classmethod
    def of(cls, data: DataConfig) -> Source:
        """Raises UsageError when the source is neither a folder nor a hub id, MachineError for a package that is not installed."""
        if data.source is None:
            return cls(data, None)
        folder = resolve_model_path(data.source) if data.source else None
        if folder is None and not HUB_ID.fullmatch(data.source):
            raise UsageError(
                "data.source is a folder, package:NAME/FOLDER or a hub id",
                repr(data.source),
                "check the folder; relative ones start from here",
            )
        return cls(data, folder)

    def file(self, split: str, key: str) -> Path | None:
        """The file that `split` means, or None. Raises UsageError when it is missing or there are two."""
        named = Path(split)
        if named.suffix.lower() in READERS:
            found = [
                path
                for path in ([self.folder / named] if self.folder else []) + [named]
                if path.is_file()
            ]
            if not found:
                raise UsageError(
                    f"data.{key}: no such file",
                    split,
                    "check the name; relative ones start from here or from data.source",
                )
            return found[0]
        if self.folder is None or not _stays_inside(split):
            return None
        found = [
            path
            for path in (self.folder / f"{split}{ending}" for ending in READERS)
            if path.is_file()
        ]
        if len(found) > 1:
            raise UsageError(
                f"data.{key} = {split!r} could be any of several files",
                ", ".join(p.name for p in found),
                f"name one: data.{key} = {found[0].name!r}",
            )
        return found[0] if found else None

    def identity(self, split: str, key: str) -> str:
        """Equal for two roles exactly when they would read the same rows."""
        path = self.file(split, key)
        return str(path.resolve()) if path else f"split {split}"

    def read(self, split: str, key: str) -> Table:
        """The rows of the role `key`. Raises UsageError, DataError or MachineError."""
        path = self.file(split, key)
        if path:
            return read_file(path, self.data.encoding, wanted_columns(self.data))
        if self.folder:
            return self._class_folders(self.folder, split, key)
        if self.data.source is None:
            raise UsageError(
                f"data.{key} = {split!r} needs data.source",
                "no data.source",
                f"set data.source, or name a csv, tsv, jsonl or parquet file in data.{key}",
            )
        return read_hub(self.data.source, self.data, split)

    def _class_folders(self, folder: Path, split: str, key: str) -> Table:
        nested = folder / split if _stays_inside(split) and _classes(folder / split) else None
        if nested is None and (key != "train" or not _classes(folder)):
            raise self._nothing_there(folder, split, key)
        return read_class_folders(nested or folder, self.data)

    def _nothing_there(self, folder: Path, split: str, key: str) -> UsageError:
        looked = f"{folder}: no {split}.{{{','.join(ending[1:] for ending in READERS)}}} and no class folders of .txt files in {split}/"
        there = (
            ", ".join(sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())[:20])
            or "nothing"
        )
        share = "" if key == "train" else f", or a share of train such as data.{key} = 0.1"
        return UsageError(
            f"data.{key} = {split!r} is not in the folder",
            f"{looked}; there is {there}",
            f"name a split that is there{share}",
        )


def _stays_inside(split: str) -> bool:
    """Whether a split names something below its folder, neither the folder itself nor a neighbour."""
    name = Path(split)
    return bool(name.parts) and not name.is_absolute() and ".." not in name.parts


def _texts(folder: Path) -> list[Path]:
    return sorted(
        (p for p in folder.glob("*.txt") if p.is_file() and not p.name.startswith(".")),
        key=lambda p: p.name,
    )


def _classes(folder: Path) -> list[Path]:
    """The subfolders that hold texts, by name."""
    if not folder.is_dir():
        return []
    return sorted(
        (
            p
            for p in folder.iterdir()
            if p.is_dir() and not p.name.startswith((".", "__")) and _texts(p)
        ),
        key=lambda p: p.name,
    )


def read_class_folders(folder: Path, data: DataConfig) -> Table:
    """One text a file, labelled with the name of its folder; classes and files in the order of their names."""
    if data.pair is not None:
        raise UsageError(
            "class folders hold single texts",
            f"data.pair = {data.pair!r}",
            "leave data.pair out, or give a csv, tsv, jsonl or parquet file",
        )
    classes = _classes(folder)
    files = [(path, kind.name) for kind in classes for path in _texts(kind)]
    columns: dict[str, Sequence[Any]] = {
        data.text: [read_text(path, data.encoding) for path, _ in files],
        data.label: [name for _, name in files],
    }
    return Table(
        str(folder),
        columns,
        (data.text, data.label),
        [str(path) for path, _ in files],
        label_names=tuple(kind.name for kind in classes),
    )


def read_hub(source: str, data: DataConfig, split: str) -> Table:
    """A split of a hub data set; rows are counted from 1. Code of the data set is never run.

    Raises UsageError for a split there is not, MachineError when it cannot be had from here.
    """
    rows = _load(source, data.config, data.revision, split)
    origin = f"{source}{f' ({data.config})' if data.config else ''} {split}"
    names = tuple(rows.column_names)
    columns: dict[str, Sequence[Any]] = {
        name: list(rows[name]) for name in wanted_columns(data) if name in names
    }
    feature = rows.features.get(data.label)
    label_names = getattr(getattr(feature, "feature", feature), "names", None)
    return Table(
        origin,
        columns,
        names,
        range(1, len(rows) + 1),
        ", row ",
        tuple(label_names) if label_names else None,
    )


def _load(source: str, config: str | None, revision: str | None, split: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise MachineError(
            "hub data sets need the datasets package",
            "it is not installed",
            'pip install "kdedge-toolkit[train]"',
        ) from error
    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(source, config, revision=revision, split=split)
    except ValueError as error:
        raise UsageError(
            f"{source} has no such split or configuration",
            _first_line(error),
            "set data.config, and the splits of train, validation and test",
        ) from error
    # Networks, caches and hubs fail in many ways, and all of them mean: not from here.
    except Exception as error:
        step = f"check the name and the network, or download it once and set data.source to its folder (there is no folder {source!r} here)"
        raise MachineError(
            f"the hub data set {source} cannot be had",
            f"{type(error).__name__}: {_first_line(error)}",
            step,
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:300]
