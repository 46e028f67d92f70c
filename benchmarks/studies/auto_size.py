"""Does `augment.size = "auto"` decide rightly? Compare two rules, and score what they choose.

    python benchmarks/studies/auto_size.py RECIPE [--set KEY=VALUE ...] [--student NAME]
        [--seeds 3] [--threads 1]

RECIPE has an [augment] table whose size is a number. The study makes that many texts, and auto
chooses among the sizes of `augment.curve`. Old rule: the score on the validation split, within one
standard error of the best. New rule: the agreement with the teacher on new texts that are kept
apart, not significantly behind the best. Neither reads the test split. All students of both rules
learn from the same texts, without those kept apart.

Each training is a stage in runs/NAME/auto-size. An interrupted study resumes after the last one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click
import numpy as np
from kdedge.benchmarks.studies._experiments import StudyArguments, study_command
from kdedge.benchmarks.studies._variant_tables import markdown_row, mean_and_deviation

from kdedge.cli.main import main
from kdedge.distillation.apart import keep_apart
from kdedge.distillation.learning_curve import (
    LearningCurve,
    Predictions,
    fit_learning_curve,
    subset,
)
from kdedge.distillation.student_training import (
    DistillContext,
    TrainingStep,
    load_trained_student,
    train_student,
)
from kdedge.evaluation.bootstrap import bootstrap_rows, bootstrap_scores
from kdedge.io.atomic import json_text, write_atomic
from kdedge.nn.text_model import MeasuredResult, read_validation_logits, score_of
from kdedge.recipe import AugmentConfig, StudentConfig
from kdedge.run.stage import StageContext, read_result
from kdedge.transfer.dataset import TransferSet

RESAMPLES = 500


@dataclass(frozen=True)
class Candidate:
    """New texts per labelled text, and their sources; no sources: labelled texts alone."""

    size: float
    sources: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.size:g} of {' + '.join(self.sources)}" if self.sources else "none"


class Trainings:
    """The students of one recipe, trained once each and kept in a folder.

    Args:
        seeds: Number of trainings per candidate.
        first: Number of the first seed.
    """

    def __init__(
        self, context: DistillContext, student: StudentConfig, seeds: int, first: int = 0
    ) -> None:
        augment = context.recipe.augment_in_use
        assert augment is not None
        self.context = context
        self.student = student
        self.first = first
        self.augment: AugmentConfig = augment.model_copy(update={"seeds": seeds})
        self.folder = context.run.folder / "auto-size" / student.key
        self.training = keep_apart(context.transfer, augment.apart).training

    def train(
        self, transfer: TransferSet, apart: TransferSet, number: int, folder: Path
    ) -> Predictions:
        """Train a student as a stage in a folder, and predict; see `TrainAndPredict`."""
        context = self.context
        number += self.first
        folder = seed_folder(folder.with_name(folder.name.partition("-seed")[0]), number)
        recipe = context.recipe.model_copy(update={"student_seed": context.seed + number})
        key = transfer.content_hash()
        changed = replace(context, recipe=recipe, transfer=transfer, transfer_key=key)
        step = TrainingStep(folder, self.student.objective, self.student.fit)
        train_student(changed, self.student, step)
        trained = load_trained_student(folder)
        texts = apart.texts.replace_mask_token(context.teacher.tokenizer, trained.tokenizer)
        validation = read_validation_logits(folder, context.task)
        return Predictions(validation, trained.predict_logits(texts.texts, texts.pairs))

    def folders(self, candidate: Candidate) -> list[Path]:
        """Return the folder of each seed, where the learning curve puts it; train if needed."""
        parent = self.folder / ("+".join(candidate.sources) or "labelled")
        part = subset(self.training, candidate.size, candidate.sources)
        folders = []
        for number in range(self.augment.seeds):
            folder = seed_folder(parent / f"{candidate.size:g}", number + self.first)
            if not folder.exists():
                self.train(part, part.take(np.arange(2)), number, folder)
            folders.append(folder)
        return folders

    def validation(self, candidate: Candidate) -> np.ndarray:
        """Return the logits (S, N, C) of each seed on the validation split."""
        task = self.context.task
        return np.stack([read_validation_logits(at, task) for at in self.folders(candidate)])

    def test(self, candidate: Candidate) -> list[float]:
        """Return the test score of each seed."""
        return [read_result(at, MeasuredResult).test for at in self.folders(candidate)]

    def curve(self) -> LearningCurve:
        """Return the curve by the new rule."""
        context = self.context
        return fit_learning_curve(
            self.augment, context.transfer, context.task, self.train, self.folder
        )


def seed_folder(folder: Path, number: int) -> Path:
    """Return the folder of a seed; it is next to the folder of the first seed."""
    return folder.with_name(f"{folder.name}-seed{number}") if number else folder


def choose_by_agreement(curve: LearningCurve, trainings: Trainings) -> Candidate:
    """Choose as kdedge does: by the agreement on texts that are kept apart."""
    sizes = (0.0, *trainings.augment.curve)
    measured = curve.chosen.size
    requested = min(sizes, key=lambda size: abs(size - measured))
    return Candidate(requested, curve.chosen.sources)


def choose_by_validation(trainings: Trainings, sources: Sequence[str]) -> Candidate:
    """Choose as kdedge did before: by the score on the validation split."""
    task, sizes = trainings.context.task, sorted(set(trainings.augment.curve))
    logits: dict[Candidate, np.ndarray] = {}

    def score(candidate: Candidate) -> float:
        if candidate not in logits:
            logits[candidate] = trainings.validation(candidate)
        scores = [score_of(task.spec, of_seed, task.validation) for of_seed in logits[candidate]]
        return float(np.mean(scores))

    none = Candidate(0.0, ())
    helpful = tuple(sources)
    if len(sources) > 1:
        alone = {source: score(Candidate(sizes[0], (source,))) for source in sources}
        helpful = tuple(source for source in sources if alone[source] >= score(none))
    candidates = [none]
    if helpful:
        candidates += [Candidate(size, helpful) for size in sizes]
    for candidate in candidates:
        score(candidate)
    best = max(logits, key=score)
    for candidate in candidates:
        error = validation_error(trainings, logits[best], logits[candidate])
        if score(candidate) >= score(best) - error:
            return candidate
    return best


def validation_error(trainings: Trainings, first: np.ndarray, second: np.ndarray) -> float:
    """Estimate the standard error of the difference of two scores on the validation split.

    Args:
        first: Logits from S seeds. *Shape:* (S, N, C)
        second: Logits of the other student from the same seeds.
    """
    task = trainings.context.task
    split = task.validation
    rows = bootstrap_rows(len(split), seed=0, count=RESAMPLES)
    rows = np.concatenate([np.arange(len(split), dtype=rows.dtype)[None], rows])
    differences = []
    for one, other in zip(first, second, strict=True):
        scores = bootstrap_scores(task.spec, one, split.labels, rows)
        differences.append(scores - bootstrap_scores(task.spec, other, split.labels, rows))
    table = np.stack(differences)  # (S, 1 + R), the whole split first
    over_texts = np.std(table[:, 1:].mean(0))
    if len(first) == 1:
        return float(over_texts)
    over_seeds = np.std(table[:, 0], ddof=1) / np.sqrt(len(first))
    return float(np.hypot(over_texts, over_seeds))


def choices_of_one_seed(
    context: DistillContext, student: StudentConfig, seeds: int, sources: Sequence[str]
) -> dict[str, list[str]]:
    """Return what each rule would choose from each seed alone."""
    choices: dict[str, list[str]] = {"old rule": [], "new rule": []}
    for first in range(seeds):
        trainings = Trainings(context, student, 1, first)
        choices["old rule"].append(str(choose_by_validation(trainings, sources)))
        choices["new rule"].append(str(choose_by_agreement(trainings.curve(), trainings)))
    return choices


@study_command
@click.option("--student", "name", help="Default: the recipe's first one.")
def study(arguments: StudyArguments, name: str | None) -> None:
    """Train, choose by both rules, and print a row of the table."""
    student = arguments.student(name)
    with arguments.prepared() as (run, prepared, teacher):
        context = replace(prepared, stages=StageContext(progress=arguments.progress))
        trainings = Trainings(context, student, len(arguments.seeds))
        curve = trainings.curve()
        origins = dict.fromkeys(context.transfer.texts.origins)
        sources = [origin for origin in origins if origin != "labelled"]
        chosen = {
            "none": Candidate(0.0, ()),
            "old rule": choose_by_validation(trainings, sources),
            "new rule": choose_by_agreement(curve, trainings),
            "full": Candidate(max(trainings.augment.curve), tuple(sources)),
        }
        alone = choices_of_one_seed(context, student, len(arguments.seeds), sources)
        cells = [f"{arguments.recipe.name}, {teacher.metric}", f"{len(context.task.validation):,}"]
        cells.append(f"{curve.apart:,}")
        scores = {}
        for rule, candidate in chosen.items():
            scores[rule] = trainings.test(candidate)
            cells.append(f"{candidate}: {mean_and_deviation(scores[rule])}")
        print(markdown_row(["task", "validation texts", "texts apart", *chosen]))
        print(markdown_row(cells))
        for rule, choices in alone.items():
            print(f"{rule}, from each seed alone: {'; '.join(choices)}")
        document = {
            "curve": curve.to_json(),
            "chosen": {rule: asdict(candidate) for rule, candidate in chosen.items()},
            "alone": alone,
            "test": scores,
            "teacher": teacher.test,
        }
        write_atomic(run.folder / "auto-size" / "result.json", json_text(document))
        print(json.dumps(document))


if __name__ == "__main__":
    main(study)
