"""Find and read a split: a file, class folders of texts, or a split of a hub data set."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdedge.errors import MachineError, UsageError, first_line
from kdedge.io.encoding import read_text
from kdedge.io.hub import BRING_HINT
from kdedge.io.paths import resolve_model_path
from kdedge.io.table import Table
from kdedge.io.tabular import TABLE_SUFFIXES, read_table
from kdedge.recipe import DataConfig

HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


def _columns(data: DataConfig) -> list[str]:
    """Return the columns that the recipe names."""
    return [name for name in (data.text, data.pair, data.label) if name is not None]


@dataclass(frozen=True)
class DataSource:
    """Where a data set is: the resolved value of data.source.

    Attributes:
        data: The recipe's table.
        folder: The folder of the splits; None if the source is a hub data set, or if every
            split is a file.
    """

    data: DataConfig
    folder: Path | None

    @classmethod
    def of(cls, data: DataConfig) -> DataSource:
        """Resolve data.source.

        Raises:
            UsageError: If it is neither a folder nor a hub id.
            MachineError: If it names a package that is not installed.
        """
        if data.source is None:
            return cls(data, None)
        folder = resolve_model_path(data.source) if data.source else None
        if folder is None and not HUB_ID.fullmatch(data.source):
            raise UsageError(
                "data.source is a folder, package:NAME/FOLDER or a hub id",
                repr(data.source),
                "check the folder; a relative one starts from the working directory",
            )
        return cls(data, folder)

    def file(self, split: str, key: str) -> Path | None:
        """Return the file of a split; None if it has class folders or is on the hub.

        Raises:
            UsageError: If a named file is missing, or several files have the split's name.
        """
        if Path(split).suffix.lower() in TABLE_SUFFIXES:
            return self._named_file(split, key)
        if self.folder is None or not _stays_inside(split):
            return None
        candidates = [self.folder / f"{split}{suffix}" for suffix in TABLE_SUFFIXES]
        existing = [path for path in candidates if path.is_file()]
        if len(existing) > 1:
            raise UsageError(
                f"data.{key} = {split!r} could be any of several files",
                ", ".join(path.name for path in existing),
                f"name one: data.{key} = {existing[0].name!r}",
            )
        return existing[0] if existing else None

    def _named_file(self, name: str, key: str) -> Path:
        candidates = [Path(name)]
        if self.folder is not None:
            candidates.insert(0, self.folder / name)
        for path in candidates:
            if path.is_file():
                return path
        raise UsageError(
            f"data.{key}: no such file",
            name,
            "check the name; a relative one starts from data.source or the working directory",
        )

    def identity(self, split: str, key: str) -> str:
        """Return a string that is the same for two splits if they read the same rows."""
        path = self.file(split, key)
        return str(path.resolve()) if path else f"split {split}"

    def read(self, split: str, key: str) -> Table:
        """Read the rows of a split; `key` is train, validation or test.

        Raises UsageError, DataError or MachineError.
        """
        path = self.file(split, key)
        if path:
            return read_table(path, _columns(self.data), self.data.encoding, self.data.delimiter)
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
        if _stays_inside(split) and _class_dirs(folder / split):
            return read_class_folders(folder / split, self.data)
        if key == "train" and _class_dirs(folder):
            return read_class_folders(folder, self.data)
        raise self._no_such_split(folder, split, key)

    def _no_such_split(self, folder: Path, split: str, key: str) -> UsageError:
        endings = ",".join(suffix[1:] for suffix in TABLE_SUFFIXES)
        names = sorted(_listed_name(path) for path in folder.iterdir())
        hint = "name a split that exists"
        if key != "train":
            hint += f", or a share of train such as data.{key} = 0.1"
        return UsageError(
            f"data.{key} = {split!r} is not in the folder",
            f"{folder} has no {split}.{{{endings}}} and no class folders of .txt files "
            f"in {split}/; it holds {', '.join(names[:20]) or 'nothing'}",
            hint,
        )


def _listed_name(path: Path) -> str:
    return f"{path.name}/" if path.is_dir() else path.name


def _stays_inside(split: str) -> bool:
    """Return whether a split's path stays inside its folder."""
    name = Path(split)
    return bool(name.parts) and not name.is_absolute() and ".." not in name.parts


def _text_files(folder: Path) -> list[Path]:
    files = [path for path in folder.glob("*.txt") if not path.name.startswith(".")]
    return sorted((path for path in files if path.is_file()), key=lambda path: path.name)


def _class_dirs(folder: Path) -> list[Path]:
    """Return the subfolders that hold texts, sorted by name."""
    if not folder.is_dir():
        return []
    visible = [path for path in folder.iterdir() if not path.name.startswith((".", "__"))]
    classes = [path for path in visible if path.is_dir() and _text_files(path)]
    return sorted(classes, key=lambda path: path.name)


def read_class_folders(folder: Path, data: DataConfig) -> Table:
    """Read one text per file, labelled with the name of its folder, in the order of names."""
    if data.pair is not None:
        raise UsageError(
            "class folders hold single texts",
            f"data.pair = {data.pair!r}",
            "leave data.pair out, or give a csv, tsv, jsonl or parquet file",
        )
    texts: list[str] = []
    labels: list[str] = []
    files: list[str] = []
    classes = _class_dirs(folder)
    for class_dir in classes:
        for path in _text_files(class_dir):
            texts.append(read_text(path, data.encoding))
            labels.append(class_dir.name)
            files.append(str(path))
    return Table(
        str(folder),
        {data.text: texts, data.label: labels},
        (data.text, data.label),
        files,
        label_names=tuple(class_dir.name for class_dir in classes),
    )


def read_hub(source: str, data: DataConfig, split: str) -> Table:
    """Read a split of a hub data set without running code of the data set.

    Raises:
        UsageError: If the split does not exist.
        MachineError: If the data set cannot be downloaded here.
    """
    rows = _load_hub(source, data, split)
    config = f" ({data.config})" if data.config else ""
    names = tuple(rows.column_names)
    columns = {name: list(rows[name]) for name in _columns(data) if name in names}
    label_names = _feature_names(rows.features.get(data.label))
    return Table(
        f"{source}{config} {split}",
        columns,
        names,
        range(1, len(rows) + 1),
        unit=", row ",
        label_names=tuple(label_names) if label_names else None,
    )


def _feature_names(feature: Any) -> Sequence[str] | None:
    """Return the label names of a ClassLabel, or of a sequence of them."""
    element = getattr(feature, "feature", feature)
    names: Sequence[str] | None = getattr(element, "names", None)
    return names


def _load_hub(source: str, data: DataConfig, split: str) -> Any:
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
        return datasets.load_dataset(source, data.config, revision=data.revision, split=split)
    except ValueError as error:
        raise UsageError(
            f"{source} has no such split or configuration",
            first_line(error),
            "set data.config, and the splits of train, validation and test",
        ) from error
    # Networks, caches and hubs raise many classes of errors; the remedy is the same.
    except Exception as error:
        raise MachineError(
            f"the hub data set {source} cannot be downloaded",
            f"{type(error).__name__}: {first_line(error)}",
            f"{BRING_HINT} (no folder {source!r} exists here)",
        ) from error
