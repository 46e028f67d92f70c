"""The main job, in the order it happens: task, teacher, transfer set, students."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kdedge.augment import TransferTexts, collect_texts, joined
from kdedge.augment.judge import judge_by, teacher_gates
from kdedge.augment.make import largest_size, make_texts
from kdedge.augment.sources import open_workshop
from kdedge.data import load_task
from kdedge.data.task import Task
from kdedge.distill.growth import Growth, difficulty, grow, part_of
from kdedge.distill.objective import Distillation, Objective
from kdedge.encode import encode, load_tokenizer
from kdedge.errors import UsageError
from kdedge.places import resolve_folder
from kdedge.processes import main_does
from kdedge.progress import SILENT, Progress
from kdedge.recipe import BiLstm, Recipe, TinyBert
from kdedge.recipe import Objective as ObjectiveRecipe
from kdedge.rundir import Run, hash_files, read_stage, stage
from kdedge.runtime import metrics
from kdedge.students import build_student, load_student
from kdedge.teacher import WEIGHTS, Teacher, load_teacher, prepare_teacher, select_predictor
from kdedge.textmodel import TextModel, save_measured
from kdedge.training import Training, this_device, train
from kdedge.transfer import TransferSet, build_transfer_set, transfer_hash

NO_TEXTS = TransferSet(TransferTexts((), None, (), np.zeros(0)), np.zeros((0, 0), np.float16))
LABELS_ALONE = ObjectiveRecipe(logits_weight=0.0, labels_weight=1.0)
"""What the undistilled student is asked to match: the same student without a teacher."""


@dataclass(frozen=True)
class Lesson:
    """All that the students of one run share. chosen: which part of the made texts, where that was found out; "" for all."""

    recipe: Recipe
    run: Run
    task: Task
    teacher: Teacher
    transfer: TransferSet
    chosen: str = ""


def distill(recipe: Recipe, runs: Path, *, force: bool = False, progress: Progress = SILENT) -> Run:
    """From recipe to trained students, each stage kept where its inputs are unchanged; returns the run."""
    run = Run.create(recipe, runs)
    with run.locked():
        lesson = prepare_lesson(recipe, run, force=force, progress=progress)
        if recipe.augment and recipe.augment.size == "auto":
            lesson = as_far_as_it_helps(lesson, force=force, progress=progress)
        for student in recipe.student:
            teach(lesson, student, force=force, progress=progress)
        main_does(run.describe)
    return run


def prepare_lesson(recipe: Recipe, run: Run, *, force: bool = False, progress: Progress = SILENT) -> Lesson:
    """Load the task, prepare the teacher, make texts where the recipe asks for them, let the teacher label the transfer set."""
    task = load_task(recipe.data, recipe.task, name=recipe.name, seed=recipe.seed, progress=progress)
    for note in task.notes:
        progress.say(f"data: {note}")
    prepare_teacher(recipe.teacher, task, run.teacher, seed=recipe.seed, force=force, progress=progress)
    teacher = load_teacher(run.teacher, task.spec, recipe.teacher.max_length)
    lesson = Lesson(recipe, run, task, teacher, NO_TEXTS)
    made = augment_texts(lesson, force=force, progress=progress) if recipe.augment else None
    return replace(lesson, transfer=label_texts(lesson, made, run.transfer, force=force, progress=progress))


def augment_texts(lesson: Lesson, *, force: bool = False, progress: Progress = SILENT) -> TransferTexts:
    """The stages `generator/`, where texts are generated, and `augment/`; later rounds start from the texts that were learned worst."""
    recipe, run, augment = lesson.recipe, lesson.run, lesson.recipe.augment
    assert augment is not None
    workshop = open_workshop(recipe, lesson.task, lesson.teacher, hash_files(run.teacher, WEIGHTS), run.shared, force=force, progress=progress)
    made, weights = None, None
    for number in range(augment.rounds):
        new = make_texts(
            augment,
            lesson.task,
            workshop.sources,
            workshop.sieve(made),
            run.shared / ("augment" if number == 0 else f"augment-{number + 1}"),
            workshop.inputs | ({"round": number + 1} if number else {}),
            seed=recipe.seed + 1000 * number,
            size=largest_size(augment) / augment.rounds,
            weights=weights,
            force=force,
            progress=progress,
        )
        made = new if made is None else joined(made, new)
        if number + 1 < augment.rounds:
            weights = _worst_learned(lesson, made, run.shared / f"round-{number + 1}", force=force, progress=progress)
    assert made is not None
    return made


def _worst_learned(lesson: Lesson, made: TransferTexts, folder: Path, *, force: bool, progress: Progress) -> np.ndarray:
    """(N,) how far the first student, after learning from the texts so far, is from the teacher on each training text."""
    transfer = label_texts(lesson, made, folder / "transfer", force=force, progress=progress)
    model = probe(replace(lesson, transfer=transfer), folder / "student", force=force, progress=progress)
    train = lesson.task.train
    gold = transfer.logits[transfer.texts.gold].astype(np.float32)
    return difficulty(model.annotate(train.texts, train.pairs, progress=progress), gold)


def label_texts(lesson: Lesson, made: TransferTexts | None, folder: Path, *, force: bool = False, progress: Progress = SILENT) -> TransferSet:
    """The stage `transfer/`: gold and made texts with the teacher's answers; those of the run's own transfer set are not asked for again."""
    recipe, run, augment = lesson.recipe, lesson.run, lesson.recipe.augment
    return build_transfer_set(
        recipe.transfer,
        collect_texts(lesson.task, made),
        lesson.teacher,
        hash_files(run.teacher, WEIGHTS),
        folder,
        judge=judge_by(augment.gates, lesson.task, lesson.teacher.max_length) if augment else None,
        gates=teacher_gates(augment.gates) if augment else None,
        known=(run.transfer, *sorted(run.shared.glob("round-*/transfer"))),
        force=force,
        progress=progress,
    )


def as_far_as_it_helps(lesson: Lesson, *, force: bool = False, progress: Progress = SILENT) -> Lesson:
    """The lesson with as many made texts, and from those sources, as the first student gains from."""
    growth = measure_growth(lesson, force=force, progress=progress)
    chosen = growth.chosen
    progress.say(f"augment: auto takes {chosen.size:g} made texts per training text, from {', '.join(chosen.sources) or 'no source'}")
    part = part_of(lesson.transfer, chosen.size, chosen.sources)
    return replace(lesson, transfer=part, chosen=f"{chosen.size:g} of {'+'.join(chosen.sources)}")


def measure_growth(lesson: Lesson, *, force: bool = False, progress: Progress = SILENT) -> Growth:
    """The stage `curve/`: what the first student scores on the select split after each size and source; every training is kept."""
    augment, folder = lesson.recipe.augment, lesson.run.folder / "curve"
    assert augment is not None
    first = lesson.recipe.student[0]
    inputs = {"curve": augment.curve, **_inputs(lesson, first, first.objective, transfer_hash(lesson.run.transfer))}

    def ask(transfer: TransferSet, place: Path) -> np.ndarray:
        model = probe(replace(lesson, transfer=transfer), place, force=force, progress=progress)
        return model.annotate(lesson.task.select.texts, lesson.task.select.pairs)

    def make(part: Path) -> dict[str, Any]:
        return grow(augment, lesson.transfer, lesson.task, ask, part).document()

    return Growth.of(stage(folder, inputs, make, force=force, progress=progress))


def probe(lesson: Lesson, folder: Path, *, force: bool = False, progress: Progress = SILENT) -> TextModel:
    """The run's first student, trained on the lesson's transfer set in a folder of its own."""
    student = lesson.recipe.student[0]
    teaching = Teaching(lesson, student, student.objective, f"trying {len(lesson.transfer):,} texts", progress)
    stage(folder, _inputs(lesson, student, student.objective, lesson.transfer.content_hash()), teaching, force=force, progress=progress)
    return TextModel(load_student(folder).to(this_device()), load_tokenizer(folder), student.max_length)


def _inputs(lesson: Lesson, student: TinyBert | BiLstm, objective: ObjectiveRecipe, transfer: str) -> dict[str, Any]:
    """What decides a student's weights; transfer: a hash of what it learns from."""
    return {
        "student": student.model_dump(mode="json", exclude={"objective", "undistilled", "quantize"}),
        "objective": objective.model_dump(mode="json"),
        "start": _start_hash(student),
        "teacher": hash_files(lesson.run.teacher, WEIGHTS),
        "transfer": transfer,
        "data": lesson.task.content_hash(),
        "seed": lesson.recipe.seed,
    }


def teach(lesson: Lesson, student: TinyBert | BiLstm, *, force: bool = False, progress: Progress = SILENT) -> None:
    """The stages `student/` and, to compare with, `undistilled/`: same start, same texts, same budget."""
    home = lesson.run.homes[Recipe.student_name(student)]
    home.mkdir(parents=True, exist_ok=True)
    objectives = {"student": student.objective}
    if student.undistilled:
        objectives["undistilled"] = LABELS_ALONE
    for stage_name, objective in objectives.items():
        transfer = transfer_hash(lesson.run.transfer) + (f", {lesson.chosen}" if lesson.chosen else "")
        inputs = _inputs(lesson, student, objective, transfer)
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
