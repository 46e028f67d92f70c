"""Do character features help a BiLSTM? Compare it with itself with pieces alone.

    python benchmarks/studies/characters.py RECIPE [--set KEY=VALUE ...] [--student NAME]
        [--seeds 3] [--threads 1]

A BiLSTM reads pieces of words, and learns a vector for each. With character features a vector has
a second part, which all pieces with the same 2 to 4 letters share: the ending of a verb, say. Both
parts are added up after the training, so that a bundle has the same size and speed.
Texts, steps and first weights are the same.

Each training is a line of runs/NAME/characters/runs.jsonl. An interrupted study resumes after the
last line. The table goes to stdout.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
from kdedge.benchmarks.studies._character_embedding import train_character_embeddings
from kdedge.benchmarks.studies._experiments import (
    ResultLog,
    Scores,
    StudyArguments,
    TrainingVariant,
    study_command,
    train_all,
)
from kdedge.benchmarks.studies._variant_tables import lines_against_first, table

from kdedge.cli.main import main
from kdedge.distillation.student_training import DistillContext, StudentTraining
from kdedge.errors import UsageError
from kdedge.nn.text_model import TextClassifier
from kdedge.recipe import BiLstmConfig


def _train_embeddings(student: TextClassifier, used: np.ndarray) -> AbstractContextManager[None]:
    return train_character_embeddings(student.model, used, student.tokenizer)


class CharacterVariant(TrainingVariant):
    """A student whose word embeddings have character features."""

    def key(self, seed: int, transfer: str) -> str:
        return f"{super().key(seed, transfer)}-characters"

    def training(self, context: DistillContext, folder: Path) -> StudentTraining:
        return replace(super().training(context, folder), train_embeddings=_train_embeddings)


@study_command
@click.option("--student", "name", help="A BiLSTM. Default: the recipe's first.")
def study(arguments: StudyArguments, name: str | None) -> None:
    """Train both variants, and print the table."""
    student = arguments.student(name)
    if not isinstance(student, BiLstmConfig):
        raise UsageError(
            "this study trains a BiLSTM",
            f"{student.key} is a {student.kind}",
            "name another student with --student",
        )
    with arguments.prepared() as (run, context, teacher):
        variants = [
            TrainingVariant("pieces alone", context, student),
            CharacterVariant("pieces and characters", context, student),
        ]
        log = ResultLog(run.folder / "characters")
        results = train_all(variants, arguments.seeds, log, arguments.progress)
        scores = Scores(context.task, log)
        lines = lines_against_first(variants, results, scores)
    print(table(["embeddings", "texts"], context.task.spec.metric, "gain", lines, teacher.test))


if __name__ == "__main__":
    main(study)
