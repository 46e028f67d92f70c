"""Distill: load the task, prepare the teacher, build the transfer set, train the students."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from kdedge.data import load_task
from kdedge.data.task import Task
from kdedge.distillation.early_checks import check_before_training
from kdedge.distillation.general import train_general_students
from kdedge.distillation.student_training import (
    LABELS_ONLY,
    DistillContext,
    TrainingStep,
    train_student,
    training_steps,
)
from kdedge.distillation.transfer_stage import (
    augment_texts,
    check_apart,
    choose_size,
    label_texts,
)
from kdedge.nn.device import describe_device
from kdedge.nn.training_plan import optimisation_steps, steps_per_epoch
from kdedge.recipe import Recipe, StudentConfig
from kdedge.run.layout import RunDir
from kdedge.run.paths import StudentDir
from kdedge.run.processes import is_main, on_main_process
from kdedge.run.stage import DEFAULT_STAGES, StageContext
from kdedge.run.stages import run_stages
from kdedge.run.threads import settle_threads
from kdedge.teacher.finetune import load_teacher, prepare_teacher
from kdedge.transfer.dataset import transfer_hash


def distill(
    recipe: Recipe,
    runs: Path,
    *,
    task: Task | None = None,
    stages: StageContext = DEFAULT_STAGES,
) -> RunDir:
    """Train the students of a recipe; stages with unchanged inputs are reused.

    Args:
        runs: The folder that holds one folder per run.
        task: The recipe's task if it is already loaded.

    Returns:
        The run; its recipe has `threads` filled in.
    """
    recipe = settle_threads(recipe, runs, None)
    run = RunDir.create(recipe, runs)
    stages = replace(stages, order=tuple(run_stages(run)), run=run.folder)
    device = describe_device()
    if is_main():
        stages.progress.say(f"{recipe.name}: computing on {device}")
    with run.locked():
        context = prepare_context(recipe, run, task=task, stages=stages)
        chooses_size = recipe.augment is not None and recipe.augment.size == "auto"
        if chooses_size:
            check_apart(context)
        train_general_students(run, context.task, stages)
        if chooses_size:
            context = choose_size(context)
        for student in recipe.student:
            train_student_stages(context, student)
        on_main_process(lambda: run.describe(context.task.overlaps_json(), device))
    return run


def prepare_context(
    recipe: Recipe,
    run: RunDir,
    *,
    task: Task | None = None,
    stages: StageContext = DEFAULT_STAGES,
) -> DistillContext:
    """Load the task unless it is given, prepare the teacher and build the transfer set.

    Faults that would stop the run later are raised first: see `check_before_training`.
    """
    if task is None:
        task = load_task(
            recipe.data, recipe.task, name=recipe.name, seed=recipe.seed, progress=stages.progress
        )
    check_before_training(recipe, task)
    prepare_teacher(recipe.teacher, task, run.teacher, seed=recipe.seed, stages=stages)
    teacher = load_teacher(run.teacher, task.spec, recipe.teacher.max_length)
    context = DistillContext(recipe, run, task, teacher, stages=stages)
    new_texts = augment_texts(context) if recipe.augment_in_use else None
    transfer = label_texts(context, new_texts)
    return replace(context, transfer=transfer, transfer_key=transfer_hash(run.transfer))


def train_student_stages(context: DistillContext, student: StudentConfig) -> None:
    """Train a student, and its label-only baseline for comparison.

    The baseline has the same start and as many optimisation steps, but reads only the labelled
    texts.
    """
    folders = context.run.students[student.key]
    folders.folder.mkdir(parents=True, exist_ok=True)
    for step in student_steps(context, student, folders):
        train_student(context, student, step)


def student_steps(
    context: DistillContext, student: StudentConfig, folders: StudentDir
) -> list[TrainingStep]:
    """Return the steps that train a student, and then its baseline if it has one."""
    steps = training_steps(student, folders)
    if student.baseline:
        fit = student.fit.model_copy(update={"epochs": baseline_epochs(context, student)})
        steps.append(TrainingStep(folders.baseline, LABELS_ONLY, fit))
    return steps


def baseline_epochs(context: DistillContext, student: StudentConfig) -> float:
    """Return the epochs over the labelled texts that take as many steps as the student.

    The trainer rounds steps up. Half a step less keeps errors of rounding from adding one.

    Example: with batches of 10, 100 labelled and 900 unlabelled texts, 3 epochs take 300 steps,
    which are 30 epochs over the labelled texts.
    """
    transfer = context.transfer
    steps = optimisation_steps(student.fit, len(transfer))
    if student.first_stage:
        steps += optimisation_steps(student.first_stage, len(transfer))
    return (steps - 0.5) / steps_per_epoch(student.fit, len(transfer.texts.labelled))
