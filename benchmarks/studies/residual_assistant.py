"""What a residual assistant adds: a second student that learns teacher minus student.

    python benchmarks/studies/residual_assistant.py RUN [--student NAME] \
        [--set student.hidden=96 ...] [--threads 1]

RUN is a finished run. The assistant has the settings of the run's student, changed by `--set`, and
learns the difference between the teacher's logits and the student's. The two models predict by the
sum of their logits. Each stage of boosting with squared error learns such a residual (Friedman
2001); for distillation see Gao et al. 2021, "Residual Error Based Knowledge Distillation".

The assistant is trained as the stage RUN/residual-assistant/NAME/, which a second call reuses. The
table of gains goes to stdout. The moment of the training is chosen on the validation split, so the
gain there is flattered.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np

from kdedge.cli.console import ConsoleProgress
from kdedge.cli.main import main
from kdedge.data.task import Split
from kdedge.distillation.pipeline import prepare_context
from kdedge.distillation.student_training import (
    DistillContext,
    StudentTraining,
    TrainingStep,
    load_trained_student,
    stage_inputs,
)
from kdedge.errors import UsageError
from kdedge.evaluation.bootstrap import bootstrap_rows, bootstrap_scores, percentile_interval
from kdedge.evaluation.latency import share_of_time
from kdedge.io.atomic import hash_files
from kdedge.nn.text_model import TextClassifier, score_of
from kdedge.recipe import ObjectiveConfig, Recipe, StudentConfig, load_recipe
from kdedge.recipe.checks import reject_auto_size
from kdedge.run.layout import RunDir
from kdedge.run.stage import WEIGHTS, StageContext, stage
from kdedge.run.threads import settle_threads
from kdedge.runtime.spec import TaskSpec
from kdedge.transfer.dataset import TransferSet

RESIDUAL = ObjectiveConfig(logits="mse")
"""Mean over texts and outputs of (teacher - student - assistant)²."""


@dataclass(frozen=True, kw_only=True)
class ResidualTraining(StudentTraining):
    """The training of an assistant; its score is that of student and assistant together.

    Attributes:
        student_logits: (N, C) of the student on the validation split.
    """

    student_logits: np.ndarray

    def score(self, logits: np.ndarray) -> float:
        return super().score(self.student_logits + logits)


@dataclass(frozen=True)
class Gain:
    """The score of student plus assistant minus that of the student, on one split.

    Attributes:
        low, high: 95 % interval over resampled texts.
    """

    student: float
    both: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        if self.low > 0:
            return "helps"
        if self.both <= self.student:
            return "does not help"
        return "inconclusive"


def assistant_config(recipe: Recipe, name: str) -> StudentConfig:
    """Return the settings of the student with this name, with the assistant's objective."""
    for student in recipe.student:
        if student.key == name:
            changes: dict[str, object] = {"objective": RESIDUAL}
            if student.first_stage:
                changes["layers_first"] = None
            return student.model_copy(update=changes)
    names = [student.key for student in recipe.student]
    raise UsageError("the recipe has no such student", name, f"one of {', '.join(names)}")


def residual(context: DistillContext, student: TextClassifier) -> TransferSet:
    """Return the transfer set with teacher minus student (float32) in place of the logits.

    For classes, each text's residual is shifted to mean 0: a shift of all logits changes no
    prediction, and KL does not determine it.
    """
    texts = context.transfer.texts.replace_mask_token(context.teacher.tokenizer, student.tokenizer)
    teacher_logits = context.transfer.logits.astype(np.float32)
    difference = teacher_logits - student.predict_logits(texts.texts, texts.pairs)
    if context.task.spec.kind == "classification":
        difference = difference - difference.mean(1, keepdims=True)
    return replace(context.transfer, logits=difference)


def train_assistant(
    context: DistillContext, config: StudentConfig, student_folder: Path, folder: Path
) -> TextClassifier:
    """Train the assistant of a finished student as a cached stage."""
    student = load_trained_student(student_folder)
    validation = context.task.validation
    training = ResidualTraining(
        replace(context, transfer=residual(context, student)),
        config,
        TrainingStep(folder, RESIDUAL, config.fit),
        student_logits=student.predict_logits(validation.texts, validation.pairs),
    )
    inputs = stage_inputs(context, config, RESIDUAL)
    inputs["residual_of"] = hash_files(student_folder, WEIGHTS)
    folder.parent.mkdir(exist_ok=True)
    stage(folder, inputs, training, stages=context.stages)
    return load_trained_student(folder)


def gain_on(
    split: Split, spec: TaskSpec, student_logits: np.ndarray, assistant_logits: np.ndarray
) -> Gain:
    """Compare the student's logits (N, C) with the sum of both on a split of N texts."""
    both_logits = student_logits + assistant_logits
    rows = bootstrap_rows(len(split), seed=0)
    student_scores = bootstrap_scores(spec, student_logits, split.labels, rows)
    both_scores = bootstrap_scores(spec, both_logits, split.labels, rows)
    low, high = percentile_interval(both_scores - student_scores)
    return Gain(
        student=score_of(spec, student_logits, split),
        both=score_of(spec, both_logits, split),
        low=low,
        high=high,
    )


def markdown(gains: dict[str, Gain]) -> str:
    """Return the table: one row per split."""
    lines = [
        "| split | student | with assistant | gain | 95 % over texts | verdict |",
        "|---|--:|--:|--:|---|---|",
    ]
    for split, gain in gains.items():
        lines.append(
            f"| {split} | {gain.student:.4f} | {gain.both:.4f} | {gain.both - gain.student:+.4f} "
            f"| {gain.low:+.4f} to {gain.high:+.4f} | {gain.verdict} |"
        )
    return "\n".join(lines)


@click.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(exists=True, path_type=Path))
@click.option("--student", "name", help="Name of the run's student; default: its first one.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE")
@click.option("--threads", type=click.IntRange(min=1))
def study(
    run_folder: Path, name: str | None, overrides: tuple[str, ...], threads: int | None
) -> None:
    """Train an assistant for a student of RUN and print what it adds."""
    run, names = RunDir.open(run_folder)
    name = name or names[0]
    config = assistant_config(load_recipe(run.recipe_file, overrides), name)
    recipe = settle_threads(run.recipe, run.folder.parent, threads)
    reject_auto_size(recipe)
    with run.locked():
        context = prepare_context(recipe, run, stages=StageContext(progress=ConsoleProgress()))
        student_folder = run.students[name].student
        folder = run.folder / "residual-assistant" / name
        assistant = train_assistant(context, config, student_folder, folder)
    student = load_trained_student(student_folder)
    gains = {}
    for split_name in ("validation", "test"):
        split: Split = getattr(context.task, split_name)
        gains[split_name] = gain_on(
            split,
            context.task.spec,
            student.predict_logits(split.texts, split.pairs),
            assistant.predict_logits(split.texts, split.pairs),
        )
    parameters = sum(parameter.numel() for parameter in assistant.model.parameters())
    time = share_of_time(context.task.validation, assistant, student)
    print(f"# {recipe.name}: what a residual assistant adds to {name}\n")
    print(
        f"Assistant: {config.kind}, {parameters:,} parameters, "
        f"adds {time:.2f}x the student's time in torch; metric: {context.task.spec.metric}.\n"
    )
    print(markdown(gains))


if __name__ == "__main__":
    main(study)
