"""The main job, in the order it happens: task, teacher, transfer set, students."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from kdedge.augment import collect_texts
from kdedge.data import load_task
from kdedge.data.task import Task
from kdedge.distill.distillation import Distillation
from kdedge.distill.objective import Objective
from kdedge.encode import encode
from kdedge.errors import UsageError
from kdedge.places import resolve_folder
from kdedge.processes import main_does
from kdedge.progress import SILENT, Progress
from kdedge.recipe import BiLstm, Fit, Recipe, TinyBert
from kdedge.recipe import Objective as ObjectiveRecipe
from kdedge.rundir import Run, hash_files, read_stage, stage
from kdedge.runtime import metrics
from kdedge.students import build_student, load_student
from kdedge.students.shrink import shrink
from kdedge.students.tinybert import chosen_layers
from kdedge.teacher import WEIGHTS, Teacher, load_teacher, prepare_teacher, select_predictor
from kdedge.textmodel import TextModel, save_measured
from kdedge.training import Training, batches, this_device, train
from kdedge.transfer import TransferSet, build_transfer_set

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
    transfer = build_transfer_set(recipe.transfer, collect_texts(task), teacher, hash_files(run.teacher, WEIGHTS), run.transfer, force=force, progress=progress)
    return Lesson(recipe, run, task, teacher, transfer)


def teach(lesson: Lesson, student: TinyBert | BiLstm, *, force: bool = False, progress: Progress = SILENT) -> None:
    """The stages `student/` and, to compare with, `undistilled/`: same start, same texts, same budget.

    Where layers are taught first, `layers/` is a stage before `student/`, which goes on from it.
    """
    home = lesson.run.homes[Recipe.student_name(student)]
    home.mkdir(parents=True, exist_ok=True)
    first = student.layers_first if isinstance(student, TinyBert) else None
    if first:
        _course(lesson, student, "layers", student.objective.layers_alone(), fit=first, force=force, progress=progress)
    objective, before = (student.objective.answers_alone(), home / "layers") if first else (student.objective, None)
    _course(lesson, student, "student", objective, before=before, force=force, progress=progress)
    if student.undistilled:
        _course(lesson, student, "undistilled", LABELS_ALONE, force=force, progress=progress)


def _course(
    lesson: Lesson,
    student: TinyBert | BiLstm,
    name: str,
    objective: ObjectiveRecipe,
    *,
    fit: Fit | None = None,
    before: Path | None = None,
    force: bool,
    progress: Progress,
) -> None:
    """One stage of training; before: the stage whose weights it goes on from."""
    at_once = {"layers_first"} if getattr(student, "layers_first", None) is None else set()
    inputs = {
        "student": student.model_dump(mode="json", exclude={"objective", "undistilled", "quantize"} | at_once),
        "objective": objective.model_dump(mode="json", exclude=objective.idle()) | ({"before": hash_files(before, WEIGHTS)} if before else {}),
        "start": _start_hash(student),
        "teacher": hash_files(lesson.run.teacher, WEIGHTS),
        "transfer": read_stage(lesson.run.transfer)["inputs"]["texts"],
        "data": lesson.task.content_hash(),
        "seed": lesson.recipe.training_seed,
    }
    teaching = Teaching(lesson, student, objective, fit or student.fit, before, f"{name} {Recipe.student_name(student)}", progress)
    stage(lesson.run.homes[Recipe.student_name(student)] / name, inputs, teaching, force=force, progress=progress)


def rehearse(
    lesson: Lesson, student: TinyBert | BiLstm, folder: Path, *, watch: Callable[[float], float] = float, progress: Progress = SILENT
) -> tuple[TextModel, float]:
    """Train a student without keeping it as a stage or reading the reported split; returns it and its score on the select split."""
    title, before, objective = f"student {Recipe.student_name(student)}", None, student.objective
    if isinstance(student, TinyBert) and student.layers_first:
        before, objective = folder / "layers", student.objective.answers_alone()
        first = Teaching(lesson, student, student.objective.layers_alone(), student.layers_first, None, title, progress)
        first.learn(before)[0].model.save_pretrained(before)
    model, _, score = Teaching(lesson, student, objective, student.fit, before, title, progress, watch).learn(folder / "student")
    return model, score


@dataclass(frozen=True)
class Teaching:
    """How one student stage is made; called with the folder to fill.

    watch: is told each score on the select split, and may raise to give up.
    """

    lesson: Lesson
    student: TinyBert | BiLstm
    objective: ObjectiveRecipe
    fit: Fit
    before: Path | None
    title: str
    progress: Progress
    watch: Callable[[float], float] = float

    def __call__(self, part: Path) -> dict[str, Any]:
        student, objective, _ = self.learn(part)
        learned = {"layer_map": objective.learned.table()} if objective.learned else {}
        return save_measured(student, self.lesson.task, part, progress=self.progress) | learned

    def learn(self, part: Path) -> tuple[TextModel, Objective, float]:
        """Build the student and train it; also returns its score on the select split."""
        torch.manual_seed(self.lesson.recipe.training_seed)
        task, teacher = self.lesson.task, self.lesson.teacher
        model, tokenizer = build_student(self.student, task.spec, teacher.model, teacher.tokenizer)
        if isinstance(self.student, TinyBert) and self.student.start == "shrink":
            self._shrink(model, tokenizer)
        if self.before:
            model.load_state_dict(load_student(self.before).state_dict())
        positions = getattr(model.config, "max_position_embeddings", None)
        if positions and self.student.max_length > positions:
            raise UsageError("the student reads fewer tokens than asked", f"max_length {self.student.max_length}, {positions} positions", "lower max_length")
        student = TextModel(model.to(this_device()), tokenizer, self.student.max_length)
        plan = self._training(student)
        objective = Objective(self.objective, task.spec.kind, model.config, teacher.model.config, batches=batches(plan))
        live = teacher if self.objective.reads_layers else None
        if live and tokenizer.get_vocab() != teacher.tokenizer.get_vocab():
            raise UsageError(
                "layers can be matched only token by token",
                "student and teacher have different vocabularies",
                "set hidden, attention and embedding weights to 0, or give the student the teacher's tokenizer",
            )
        score = train(Distillation(model, objective, live).to(this_device()), plan, part, progress=self.progress)
        return student, objective, score

    def _shrink(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
        teacher = self.lesson.teacher
        if tokenizer.get_vocab() != teacher.tokenizer.get_vocab():
            raise UsageError("a shrunk student reads with its teacher's vocabulary", f"{self.student.tokenizer}", "remove student.tokenizer")
        assert isinstance(self.student, TinyBert)
        layers = chosen_layers(self.student, teacher.model.config.num_hidden_layers)
        shrink(model.to(this_device()), teacher, self.lesson.task, layers, self.lesson.recipe.training_seed)

    def _training(self, student: TextModel) -> Training:
        task, transfer = self.lesson.task, self.lesson.transfer
        texts = transfer.texts
        data = encode(student.tokenizer, texts.texts, texts.pairs, student.max_length, labels=texts.labels, teacher_logits=transfer.logits)
        return Training(
            fit=self.fit,
            seed=self.lesson.recipe.training_seed,
            data=data,
            pad=student.pad,
            predict=select_predictor(student.encode(task.select.texts, task.select.pairs), student.pad),
            score=lambda logits: self.watch(metrics.score(task.spec.metric, task.spec.kind, logits, task.select.labels)),
            title=self.title,
        )


def _start_hash(student: TinyBert | BiLstm) -> str:
    place = None if student.start in ("teacher", "scratch", "shrink") else resolve_folder(student.start)
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


def learned_maps(run: Run) -> dict[str, list[list[float]]]:
    """Student name -> shares (S, T) of teacher layers, for the students whose layer map was learned."""
    results = {name: read_stage(home / "student")["result"] for name, home in run.homes.items()}
    return {name: result["layer_map"] for name, result in results.items() if "layer_map" in result}
