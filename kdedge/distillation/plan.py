"""Show what `kdedge distill` would do: which stages it would make, and which it would reuse.

The plan is a dry run of the pipeline itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kdedge.data.task import Task
from kdedge.recipe import Recipe
from kdedge.run.layout import RunDir
from kdedge.run.stage import StageContext, StageNeeded
from kdedge.run.stages import general_stages, run_stages

if TYPE_CHECKING:
    from kdedge.distillation.student_training import DistillContext

Needed = dict[Path, StageNeeded]
"""The folder of each stage to make -> why it has to be made."""

State = Literal["cached", "new", "continues", "restarts", "changed", "waits"]


@dataclass(frozen=True)
class PlannedStage:
    """One stage of a plan.

    Attributes:
        folder: The folder of the stage.
        state: `cached`: it is reused. `new`: it will be made. `continues`: it was interrupted and
            goes on. `restarts`: it was interrupted, but with other inputs, so its unfinished work
            is removed. `changed`: its inputs differ, and only --force makes it again. `waits`: it
            exists, but whether it is reused depends on an earlier stage that has to be made.
        differences: Descriptions of the inputs that differ.
    """

    folder: Path
    state: State
    differences: tuple[str, ...] = ()


def plan_stages(recipe: Recipe, runs: Path, task: Task) -> list[PlannedStage]:
    """List the stages of a recipe in order, with what would happen to each.

    Nothing is trained and nothing is written.

    Raises:
        KdedgeError: If the run would stop at one of its stages: see `check_before_training`.
    """
    # Imported here: the command line shows its help without torch.
    from kdedge.distillation.early_checks import check_before_training

    check_before_training(recipe, task)
    run = RunDir(runs / recipe.name, recipe)
    folders = run_stages(run)
    needed: Needed = {}
    unknown: set[Path] = set()
    if any(folder.exists() or _part(folder).exists() for folder in folders):
        needed, unknown = _dry_run(run, task)
    planned = []
    for folder in folders:
        reason = needed.get(folder)
        state = _state(folder, reason, is_unknown=folder in unknown)
        planned.append(PlannedStage(folder, state, tuple(reason.differences) if reason else ()))
    return planned


def _part(folder: Path) -> Path:
    """Return the folder of a stage while it is unfinished."""
    return folder.with_name(folder.name + ".part")


def _state(folder: Path, reason: StageNeeded | None, *, is_unknown: bool) -> State:
    if reason and reason.differences:
        return "changed"
    if folder.exists():
        return "waits" if is_unknown else "cached"
    if not _part(folder).exists():
        return "new"
    return "restarts" if reason and reason.discards else "continues"


def _dry_run(run: RunDir, task: Task) -> tuple[Needed, set[Path]]:
    """Return the stages to make, and those that wait for them."""
    # Imported here: a plan of a new run needs no torch.
    from kdedge.distillation.pipeline import prepare_context
    from kdedge.distillation.transfer_stage import check_apart, choose_size
    from kdedge.run.threads import silence_transformers

    silence_transformers()
    stages = StageContext(dry_run=True)
    needed = _needed_general_students(run, task, stages)
    has_curve = run.recipe.augment is not None and run.recipe.augment.size == "auto"
    try:
        context = prepare_context(run.recipe, run, task=task, stages=stages)
        if has_curve:
            check_apart(context)
        if has_curve and needed:
            return needed, _after(run, run.transfer)
        if has_curve:
            context = choose_size(context)
    except StageNeeded as stop:
        return needed | {stop.folder: stop}, _after(run, stop.folder)
    return _students_needed(context, needed)


def _needed_general_students(run: RunDir, task: Task, stages: StageContext) -> Needed:
    """Return the general students to make."""
    from kdedge.distillation.general import train_general_student

    needed: Needed = {}
    for student in run.recipe.student:
        try:
            train_general_student(run, student, task, stages)
        except StageNeeded as stop:
            needed[stop.folder] = stop
    return needed


def _students_needed(context: DistillContext, needed: Needed) -> tuple[Needed, set[Path]]:
    """Add the students to make to `needed`; also return those that wait for earlier stages."""
    from kdedge.distillation.pipeline import student_steps
    from kdedge.distillation.student_training import train_student

    run = context.run
    needed = dict(needed)
    unknown: set[Path] = set()
    for student in run.recipe.student:
        for step in student_steps(context, student, run.students[student.key]):
            if step.previous in needed or run.general_student(student) in needed:
                unknown.add(step.folder)
                continue
            try:
                train_student(context, student, step)
            except StageNeeded as stop:
                needed[stop.folder] = stop
    return needed, unknown


def _after(run: RunDir, folder: Path) -> set[Path]:
    """Return the folders of all stages that depend on a shared stage."""
    folders = run_stages(run)
    later = folders[folders.index(folder) + 1 :] if folder in folders else folders
    return set(later) - set(general_stages(run))
