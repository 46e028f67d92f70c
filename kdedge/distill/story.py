"""The main job, in the order it happens: task, teacher, transfer set, students."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from kdedge.augment import TransferTexts, collect_texts
from kdedge.augment.judge import judge_by, teacher_gates
from kdedge.augment.make import make_texts
from kdedge.augment.sources import open_workshop
from kdedge.data import load_task
from kdedge.data.task import Task
from kdedge.distill.objective import Distillation, Objective
from kdedge.encode import encode
from kdedge.errors import UsageError
from kdedge.places import resolve_folder
from kdedge.processes import main_does
from kdedge.progress import SILENT, Progress
from kdedge.recipe import BiLstm, Recipe, TinyBert
from kdedge.recipe import Objective as ObjectiveRecipe
from kdedge.rundir import Run, hash_files, read_stage, stage
from kdedge.runtime import metrics
from kdedge.students import build_student
from kdedge.teacher import WEIGHTS, Teacher, load_teacher, prepare_teacher, select_predictor
from kdedge.textmodel import TextModel, save_measured
from kdedge.training import Training, this_device, train
from kdedge.transfer import TransferSet, build_transfer_set, transfer_hash

LABELS_ALONE = ObjectiveRecipe(logits_weight=0.0, labels_weight=1.0)
"""What the undistilled student is asked to match: the same student without a teacher."""


@dataclass(frozen=True)
class Lesson:
    """All that the students of one run share."""

    recipe: Recipe
    run: Run
    task: Task
    teacher: Teacher
    transfer: TransferSet


def distill(recipe: Recipe, runs: Path, *, force: bool = False, progress: Progress = SILENT) -> Run:
    """From recipe to trained students, each stage kept where its inputs are unchanged; returns the run."""
    run = Run.create(recipe, runs)
    with run.locked():
        lesson = prepare_lesson(recipe, run, force=force, progress=progress)
        for student in recipe.student:
            teach(lesson, student, force=force, progress=progress)
        main_does(run.describe)
    return run


def prepare_lesson(recipe: Recipe, run: Run, *, force: bool = False, progress: Progress = SILENT) -> Lesson:
    """Load the task, prepare the teacher, let it label the transfer set."""
    task = load_task(recipe.data, recipe.task, name=recipe.name, seed=recipe.seed, progress=progress)
    for note in task.notes:
        progress.say(f"data: {note}")
    prepare_teacher(recipe.teacher, task, run.teacher, seed=recipe.seed, force=force, progress=progress)
    teacher = load_teacher(run.teacher, task.spec, recipe.teacher.max_length)
    transfer = prepare_transfer_set(recipe, run, task, teacher, force=force, progress=progress)
    return Lesson(recipe, run, task, teacher, transfer)


def prepare_transfer_set(recipe: Recipe, run: Run, task: Task, teacher: Teacher, *, force: bool = False, progress: Progress = SILENT) -> TransferSet:
    """The stages `augment/`, where the recipe asks for more texts, and `transfer/`."""
    made, judge, gates = None, None, None
    if recipe.augment:
        made = augment_texts(recipe, run, task, teacher, force=force, progress=progress)
        judge, gates = judge_by(recipe.augment.gates, task, teacher.max_length), teacher_gates(recipe.augment.gates)
    return build_transfer_set(
        recipe.transfer,
        collect_texts(task, made),
        teacher,
        hash_files(run.teacher, WEIGHTS),
        run.transfer,
        judge=judge,
        gates=gates,
        force=force,
        progress=progress,
    )


def augment_texts(recipe: Recipe, run: Run, task: Task, teacher: Teacher, *, force: bool = False, progress: Progress = SILENT) -> TransferTexts:
    """The stages `generator/`, where texts are generated, and `augment/`."""
    assert recipe.augment is not None
    workshop = open_workshop(recipe, task, teacher, hash_files(run.teacher, WEIGHTS), run.shared, force=force, progress=progress)
    return make_texts(recipe.augment, task, workshop.sources, workshop.sieve, run.augment, workshop.inputs, seed=recipe.seed, force=force, progress=progress)


def teach(lesson: Lesson, student: TinyBert | BiLstm, *, force: bool = False, progress: Progress = SILENT) -> None:
    """The stages `student/` and, to compare with, `undistilled/`: same start, same texts, same budget."""
    home = lesson.run.homes[Recipe.student_name(student)]
    home.mkdir(parents=True, exist_ok=True)
    objectives = {"student": student.objective}
    if student.undistilled:
        objectives["undistilled"] = LABELS_ALONE
    for stage_name, objective in objectives.items():
        inputs = {
            "student": student.model_dump(mode="json", exclude={"objective", "undistilled", "quantize"}),
            "objective": objective.model_dump(mode="json"),
            "start": _start_hash(student),
            "teacher": hash_files(lesson.run.teacher, WEIGHTS),
            "transfer": transfer_hash(lesson.run.transfer),
            "data": lesson.task.content_hash(),
            "seed": lesson.recipe.seed,
        }
        title = f"{stage_name} {Recipe.student_name(student)}"
        stage(home / stage_name, inputs, Teaching(lesson, student, objective, title, progress), force=force, progress=progress)


@dataclass(frozen=True)
class Teaching:
    """How one student stage is made; called with the folder to fill."""

    lesson: Lesson
    student: TinyBert | BiLstm
    objective: ObjectiveRecipe
    title: str
    progress: Progress

    def __call__(self, part: Path) -> dict[str, Any]:
        torch.manual_seed(self.lesson.recipe.seed)
        task, teacher = self.lesson.task, self.lesson.teacher
        model, tokenizer = build_student(self.student, task.spec, teacher.model, teacher.tokenizer)
        positions = getattr(model.config, "max_position_embeddings", None)
        if positions and self.student.max_length > positions:
            raise UsageError("the student reads fewer tokens than asked", f"max_length {self.student.max_length}, {positions} positions", "lower max_length")
        student = TextModel(model.to(this_device()), tokenizer, self.student.max_length)
        objective = Objective(self.objective, task.spec.kind, model.config, teacher.model.config)
        live = teacher if self.objective.reads_layers else None
        if live and tokenizer.get_vocab() != teacher.tokenizer.get_vocab():
            raise UsageError(
                "layers can be matched only token by token",
                "student and teacher have different vocabularies",
                "set hidden, attention and embedding weights to 0, or give the student the teacher's tokenizer",
            )
        train(Distillation(model, objective, live).to(this_device()), self._training(student), part, progress=self.progress)
        return save_measured(student, task, part, progress=self.progress)

    def _training(self, student: TextModel) -> Training:
        task, transfer = self.lesson.task, self.lesson.transfer
        if self.objective == LABELS_ALONE:
            transfer = transfer.take(transfer.texts.gold)
        texts = spelled_for(student, self.lesson.teacher, transfer.texts)
        data = encode(student.tokenizer, texts.texts, texts.pairs, student.max_length, labels=texts.labels, teacher_logits=transfer.logits)
        return Training(
            fit=self.student.fit,
            seed=self.lesson.recipe.seed,
            data=data,
            pad=student.pad,
            predict=select_predictor(student.encode(task.select.texts, task.select.pairs), student.pad),
            score=lambda logits: metrics.score(task.spec.metric, task.spec.kind, logits, task.select.labels),
            title=self.title,
        )


def spelled_for(student: TextModel, teacher: TextModel, texts: TransferTexts) -> TransferTexts:
    """The texts with masked words written as the student's tokenizer knows them."""
    theirs, mine = teacher.tokenizer.mask_token, student.tokenizer.mask_token
    if theirs is None or theirs == mine or "rule" not in texts.origins:
        return texts
    pairs = None if texts.pairs is None else tuple(text.replace(theirs, mine or "") for text in texts.pairs)
    return replace(texts, texts=tuple(text.replace(theirs, mine or "") for text in texts.texts), pairs=pairs)


def _start_hash(student: TinyBert | BiLstm) -> str:
    place = None if student.start in ("teacher", "scratch") else resolve_folder(student.start)
    return hash_files(place, WEIGHTS) if place else student.start


def scores(run: Run) -> list[dict[str, Any]]:
    """One row per trained model of a run: name, metric, select, report, share of the teacher's score, parameters."""
    folders = {"teacher": run.teacher}
    for name, home in run.homes.items():
        folders[name] = home / "student"
        undistilled = run.undistilled(name)
        if undistilled:
            folders[f"{name} undistilled"] = undistilled
    results = {name: read_stage(folder)["result"] for name, folder in folders.items()}
    top = results["teacher"]["report"]
    return [
        {
            "model": name,
            **{key: result[key] for key in ("metric", "select", "report", "parameters")},
            "kept": result["report"] / top if top > 0 else None,
        }
        for name, result in results.items()
    ]
