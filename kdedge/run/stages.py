"""Which stages a recipe has, in the order in which `kdedge distill` makes them."""

from __future__ import annotations

from pathlib import Path

from kdedge.run.layout import RunDir


def shared_stages(run: RunDir) -> list[Path]:
    """List the folders of the stages before the students: teacher, texts, general students."""
    folders = [run.teacher]
    augment = run.recipe.augment_in_use
    if augment:
        if augment.generate:
            folders.append(run.generator)
        folders.append(run.augment)
    folders.append(run.transfer)
    folders += general_stages(run)
    if augment and augment.size == "auto":
        folders.append(run.curve)
    return folders


def general_stages(run: RunDir) -> list[Path]:
    """List the folders of the general students. They depend on no other stage."""
    folders = []
    for student in run.recipe.student:
        if student.general_stage:
            folders.append(run.general_student(student))
    return folders


def student_stages(run: RunDir) -> dict[str, list[Path]]:
    """List the folders of each student's stages, by its name."""
    stages = {}
    for student in run.recipe.student:
        folders = run.students[student.key]
        steps = []
        if student.first_stage:
            steps.append(folders.layers)
        steps.append(folders.student)
        if student.baseline:
            steps.append(folders.baseline)
        stages[student.key] = steps
    return stages


def run_stages(run: RunDir) -> list[Path]:
    """List the folders of all stages of a run."""
    folders = shared_stages(run)
    for steps in student_stages(run).values():
        folders += steps
    return folders
