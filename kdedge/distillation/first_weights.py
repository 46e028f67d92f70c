"""Compute a student's first weights, or read them if the same ones were computed before.

Cutting a student out of a teacher runs the teacher several times on training texts: minutes for
a teacher of 12 layers. The label-only baseline starts from the same weights, and so do the
students of a study that differ only in their loss. So they are kept in the run:

    start-<hash>/    weights and tokenizer; the hash is that of everything that decides them

The folder may be removed at any time: it is made again when it is needed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kdedge.data.task import Task
from kdedge.io.atomic import json_text
from kdedge.io.model_files import tokenizer_hash
from kdedge.nn.text_model import TextClassifier
from kdedge.nn.tokenization import load_tokenizer
from kdedge.recipe import StudentConfig
from kdedge.recipe.general import KEYS_OF_THE_TASK
from kdedge.run.locks import locked_stage
from kdedge.run.processes import on_main_process
from kdedge.run.progress import SILENT, Progress
from kdedge.run.stage import StageContext
from kdedge.students.build import load_student, new_student, reads_training_texts

OTHER_KEYS = {*KEYS_OF_THE_TASK, "general", "assistant"} - {"max_length", "vocabulary"}
"""Keys of a student that do not decide its first weights, or have inputs of their own."""


@dataclass(frozen=True)
class FirstWeights:
    """What decides the first weights of a student, and where they are kept.

    Attributes:
        config: The student.
        source: The classifier whose weights the student may take.
        source_hash: Hash of the source's weights.
        folder: The folder of the run that keeps the weights.
        seed: Seed of random weights, and for the choice of texts.
    """

    config: StudentConfig
    task: Task
    source: TextClassifier
    source_hash: str
    folder: Path
    seed: int
    progress: Progress = SILENT

    def build(self) -> TextClassifier:
        """Return the student with its first weights.

        Random numbers that are drawn after it do not depend on whether the weights were kept.
        """
        if not reads_training_texts(self.config, self.source):
            return self._make()
        inputs = self.inputs()
        name = hashlib.sha256(json_text(inputs).encode()).hexdigest()[:8]
        folder = self.folder / f"start-{name}"
        waiting = "another process computes these first weights; waiting for it"
        remade = StageContext(force=True, progress=self.progress)
        locked_stage(folder, inputs, self._save, waiting, remade)
        return TextClassifier(load_student(folder), load_tokenizer(folder), self.config.max_length)

    def inputs(self) -> dict[str, Any]:
        """Return everything that decides the weights."""
        return {
            "student": self.config.model_dump(mode="json", exclude=OTHER_KEYS),
            "source": self.source_hash,
            "tokenizer": tokenizer_hash(self.config.tokenizer),
            "source_max_length": self.source.max_length,
            "data": self.task.content_hash(),
            "seed": self.seed,
        }

    def _save(self, part: Path) -> dict[str, Any]:
        """Compute and save the weights on the main process."""
        self.progress.say(f"{self.config.key}: fitting its first weights to the training texts")
        on_main_process(lambda: self._compute(part))
        return {}

    def _compute(self, part: Path) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            student = self._make()
        student.model.save_pretrained(part)
        student.tokenizer.save_pretrained(part)

    def _make(self) -> TextClassifier:
        return new_student(self.config, self.task, self.source, self.seed)
