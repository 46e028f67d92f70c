"""The main job, in the order it happens: task, teacher, transfer set, students."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kdedge.data import load_task
from kdedge.distillation.assistant import Gain, assist
from kdedge.distillation.student_training import LABELS_ONLY, DistillContext, train_student
from kdedge.distillation.transfer_stage import augment_texts, choose_size, label_texts
from kdedge.recipe import BiLstmConfig, Recipe, TinyBertConfig
from kdedge.run.layout import RunDir
from kdedge.run.processes import on_main_process
from kdedge.run.stage import DEFAULT_STAGES, StageContext, read_stage
from kdedge.teacher.ensemble import prepare_teachers
from kdedge.transfer.dataset import TransferSet, transfer_hash
from kdedge.transfer.texts import TransferTexts

NO_TEXTS = TransferSet(TransferTexts.of((), None, (), np.zeros(0)), np.zeros((0, 0), np.float16))
"""What a context holds before its texts are made."""


def distill(recipe: Recipe, runs: Path, *, stages: StageContext = DEFAULT_STAGES) -> RunDir:
    """From recipe to trained students, each stage kept where its inputs are unchanged; returns the run."""
    run = RunDir.create(recipe, runs)
    with run.locked():
        context = prepare_context(recipe, run, stages=stages)
        if recipe.augment and recipe.augment.size == "auto":
            context = choose_size(context, stages=stages)
        for student in recipe.student:
            train_student_stages(context, student, stages=stages)
        on_main_process(run.describe)
    return run


def prepare_context(
    recipe: Recipe, run: RunDir, *, stages: StageContext = DEFAULT_STAGES
) -> DistillContext:
    """Load the task, prepare the teacher, make texts where the recipe asks for them, let the teacher label the transfer set."""
    task = load_task(
        recipe.data, recipe.task, name=recipe.name, seed=recipe.seed, progress=stages.progress
    )
    teacher = prepare_teachers(run, task, stages=stages)
    context = DistillContext(recipe, run, task, teacher, NO_TEXTS)
    made = augment_texts(context, stages=stages) if recipe.augment else None
    return replace(context, transfer=label_texts(context, made, run.transfer, stages=stages))


def train_student_stages(
    context: DistillContext,
    student: TinyBertConfig | BiLstmConfig,
    *,
    stages: StageContext = DEFAULT_STAGES,
) -> None:
    """The stages `student/` and, to compare with, `baseline/`: same start and epochs, on the labelled texts alone.

    Beside made texts the baseline so takes fewer steps; `labels alone, more steps` of benchmarks/studies/augmentation.py takes as many.
    Where layers are taught first, `layers/` is a stage before `student/`, which goes on from it; `assistant/` comes after it.
    """
    home = context.run.student_dirs[Recipe.student_name(student)]
    home.mkdir(parents=True, exist_ok=True)
    transfer = transfer_hash(context.run.transfer) + (
        f", {context.chosen}" if context.chosen else ""
    )
    first = student.layers_first if isinstance(student, TinyBertConfig) else None
    if first:
        train_student(
            context,
            student,
            home / "layers",
            student.objective.layers_alone(),
            transfer,
            fit=first,
            stages=stages,
        )
    objective, before = (
        (student.objective.answers_alone(), home / "layers") if first else (student.objective, None)
    )
    train_student(
        context,
        student,
        home / "student",
        objective,
        transfer,
        before=before,
        stages=stages,
    )
    if student.assistant:
        assist(context, student, transfer, stages=stages)
    if student.baseline:
        train_student(
            context,
            student,
            home / "baseline",
            LABELS_ONLY,
            transfer,
            stages=stages,
        )


def scores(run: RunDir) -> list[dict[str, Any]]:
    """One row per trained model of a run: name, metric, validation, test, share of the teacher's score, parameters.

    Of several teachers, `teacher` is what they say together; each has a row of its own with its temperature.
    """
    folders = {"teacher": run.teacher} | {
        f"teacher {name}": folder for name, folder in run.teachers.items()
    }
    for name, home in run.student_dirs.items():
        folders[name] = home / "student"
        if run.assistant(name):
            folders[f"{name} + assistant"] = home / "assistant"
        baseline = run.baseline_dir(name)
        if baseline:
            folders[f"{name} baseline"] = baseline
    results = {name: read_stage(folder)["result"] for name, folder in folders.items()}
    top = results["teacher"]["test"]
    together = results["teacher"].get("teachers", {})
    return [
        {
            "model": name,
            **{key: result[key] for key in ("metric", "validation", "test", "parameters")},
            "kept": result["test"] / top if top > 0 else None,
            **(
                {"temperature": together[name.removeprefix("teacher ")]["temperature"]}
                if name.startswith("teacher ")
                else {}
            ),
        }
        for name, result in results.items()
    ]


def learned_maps(run: RunDir) -> dict[str, list[list[float]]]:
    """Student name -> shares (S, T) of teacher layers, for the students whose layer map was learned."""
    first = {
        Recipe.student_name(one): getattr(one, "layers_first", None) for one in run.recipe.student
    }
    results = {
        name: read_stage(home / ("layers" if first[name] else "student"))["result"]
        for name, home in run.student_dirs.items()
    }
    return {name: result["layer_map"] for name, result in results.items() if "layer_map" in result}


def gains(run: RunDir) -> dict[str, Gain]:
    """Student name -> what its assistant adds and costs, for the students that have one."""
    return {
        name: Gain(**read_stage(home / "assistant")["result"]["gain"])
        for name, home in run.student_dirs.items()
        if run.assistant(name)
    }
