"""The unlabelled texts of a general student: single texts and pairs from several files."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kdedge.data.task import Split, Task
from kdedge.distillation.teacher_tokens import teacher_tokens
from kdedge.errors import DataError
from kdedge.io.faults import Faults
from kdedge.io.table import checked_texts
from kdedge.io.tabular import TEXT_SUFFIXES, read_table
from kdedge.nn.batching import Encoded, joined_encoded
from kdedge.nn.text_model import TextClassifier
from kdedge.recipe.general import GeneralConfig, TextFileConfig
from kdedge.runtime.spec import TaskSpec
from kdedge.transfer.dataset import update_joined
from kdedge.transfer.texts import TransferTexts, no_labels

NO_TASK = TaskSpec("general", "regression", ("unused",), "pearson", pair=False)
"""The task of models whose only output is not used."""


@dataclass(frozen=True)
class GeneralTexts:
    """The texts of F files, each with single texts or with pairs."""

    files: tuple[TransferTexts, ...]

    def __len__(self) -> int:
        return sum(len(file) for file in self.files)

    def content_hash(self) -> str:
        """Return the SHA-256 of the texts, in order."""
        digest = hashlib.sha256()
        for file in self.files:
            for column in (file.texts, file.pairs or ()):
                digest.update(f"{len(column)} texts:".encode())
                update_joined(digest, column, "\x1e")
        return digest.hexdigest()

    def among(self, texts: set[str]) -> set[str]:
        """Return which of some texts stand in the files, also as a text of a pair."""
        found: set[str] = set()
        for file in self.files:
            for column in (file.texts, file.pairs or ()):
                found.update(texts.intersection(column))
        return found

    def encode(self, student: TextClassifier) -> Encoded:
        """Tokenize all texts for a student."""
        return joined_encoded([student.encode(file.texts, file.pairs) for file in self.files])

    def teacher_tokens(self, teacher: TextClassifier, student: TextClassifier) -> Encoded | None:
        """Tokenize all texts for the teacher, as the function of that name does."""
        parts = []
        for file in self.files:
            tokens = teacher_tokens(teacher, student, file)
            if tokens is None:
                return None
            parts.append(tokens)
        return joined_encoded(parts)

    def as_task(self) -> Task:
        """Return the texts as the training split of a task, each text of a pair on its own.

        A student that starts from its teacher is fitted to it on training texts. Their labels are
        all 0, for the unused output of the teacher's new head.
        """
        texts: list[str] = []
        for file in self.files:
            texts += [*file.texts, *(file.pairs or ())]
        train = Split(tuple(texts), None, np.zeros(len(texts), np.float32))
        empty = Split((), None, np.zeros(0, np.float32))
        return Task(NO_TASK, train, empty, empty)


def read_general_texts(general: GeneralConfig, encoding: str) -> GeneralTexts:
    """Read and check all files of a general student.

    Raises:
        DataError: If a file has no texts or an unusable one; names file and line.
        UsageError: If a file cannot be read, or lacks a column.
    """
    return GeneralTexts(tuple(_read_file(file, encoding) for file in general.texts))


def _read_file(config: TextFileConfig, encoding: str) -> TransferTexts:
    columns = [config.text] if config.pair is None else [config.text, config.pair]
    table = read_table(Path(config.file), columns, encoding, suffixes=TEXT_SUFFIXES)
    if not len(table):
        raise DataError(
            "a general student needs texts",
            f"{config.file} is empty",
            "add texts, or remove the file from student.general.texts",
        )
    faults = Faults(table.origin)
    texts = checked_texts(table, config.text, "student.general.texts.text", faults)
    pairs = None
    if config.pair is not None:
        pairs = checked_texts(table, config.pair, "student.general.texts.pair", faults)
    faults.raise_if_any()
    labels = no_labels(len(texts), NO_TASK.kind, NO_TASK.outputs)
    return TransferTexts.of(texts, pairs, ("pool",) * len(texts), labels)
