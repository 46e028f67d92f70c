"""Several teachers that answer as one: each fine-tuned and measured by itself, then the mean of their calibrated logits.

teacher-NAME/            each teacher: a stage as `teacher/` is where there is one alone
teacher/ensemble.json    names, weights and temperatures of all; what decides the answer
teacher/test_logits.npy, stage.json   what they say together, and its scores
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdedge.data.task import Task
from kdedge.io.atomic import hash_files, json_text, write_atomic
from kdedge.io.paths import short_name
from kdedge.nn.text_model import TextClassifier, score_of
from kdedge.run.layout import RunDir
from kdedge.run.processes import on_main_process
from kdedge.run.stage import DEFAULT_STAGES, WEIGHTS, StageContext, read_stage, stage
from kdedge.teacher.finetune import Teacher, load_teacher, prepare_teacher
from kdedge.teacher.temperature import HIGHEST, LOWEST, fit_temperature, mean_logits

ENSEMBLE_FILE = "ensemble.json"


@dataclass(frozen=True)
class Ensemble(TextClassifier):
    """Teachers and their temperatures; answers are the mean of their calibrated logits.

    model, tokenizer and max_length are the first teacher's: it lends students its layers, word embeddings and vocabulary.
    """

    members: tuple[TextClassifier, ...]
    temperatures: tuple[float, ...]

    def predict_logits(
        self, texts: Sequence[str], pairs: Sequence[str] | None, **settings: Any
    ) -> np.ndarray:
        """Logits (N, C) float32 of all teachers together; each reads with its own tokenizer."""
        said = [
            member.predict_logits(
                self._spelled(texts, member), pairs and self._spelled(pairs, member), **settings
            )
            for member in self.members
        ]
        return mean_logits(said, self.temperatures)

    def _spelled(self, texts: Sequence[str], member: TextClassifier) -> Sequence[str]:
        """Masked words are written as the first teacher knows them."""
        first, other = self.tokenizer.mask_token, member.tokenizer.mask_token
        return (
            texts
            if first is None or first == other
            else tuple(text.replace(first, other or "") for text in texts)
        )


def prepare_teachers(run: RunDir, task: Task, *, stages: StageContext = DEFAULT_STAGES) -> Teacher:
    """The stages of the recipe's teachers, and the stage of what they say together where there are several; returns them, opened."""
    recipe = run.recipe
    if not run.teachers:
        (only,) = recipe.teacher
        prepare_teacher(only, task, run.teacher, seed=recipe.seed, stages=stages)
        return load_teacher(run.teacher, task.spec, only.max_length)
    for one, folder in zip(recipe.teacher, run.teachers.values(), strict=True):
        prepare_teacher(one, task, folder, seed=recipe.seed, stages=stages)
    members = tuple(
        load_teacher(folder, task.spec, one.max_length)
        for one, folder in zip(recipe.teacher, run.teachers.values(), strict=True)
    )
    result = _prepare_ensemble(run, task, members, stages=stages)
    temperatures = tuple(result["teachers"][name]["temperature"] for name in run.teachers)
    return Ensemble(
        members[0].model, members[0].tokenizer, members[0].max_length, members, temperatures
    )


def _prepare_ensemble(
    run: RunDir, task: Task, members: tuple[TextClassifier, ...], *, stages: StageContext
) -> dict[str, Any]:
    """The stage `teacher/` of several: a temperature for each from the validation split, and the scores of the mean."""
    weights = {name: hash_files(folder, WEIGHTS) for name, folder in run.teachers.items()}
    inputs = {
        "teachers": weights,
        "max_lengths": [member.max_length for member in members],
        "data": task.content_hash(),
    }

    def make(part: Path) -> dict[str, Any]:
        start = time.monotonic()
        alone = {name: read_stage(folder)["result"] for name, folder in run.teachers.items()}
        validation = [
            member.predict_logits(task.validation.texts, task.validation.pairs)
            for member in members
        ]
        temperatures = [
            fit_temperature(logits, task.validation.labels, task.spec.kind) for logits in validation
        ]
        for name, temperature in zip(alone, temperatures, strict=True):
            doubt = {
                LOWEST: ": it answers the validation split without a fault",
                HIGHEST: ": it knows next to nothing of the validation split",
            }.get(temperature, "")
            stages.progress.say(
                f"teacher-{name}: {task.spec.metric} {alone[name]['test']:.4f}, temperature {temperature:.4g}{doubt}"
            )
        test = mean_logits(
            [
                np.load(folder / "test_logits.npy", allow_pickle=False)
                for folder in run.teachers.values()
            ],
            temperatures,
        )
        shown = {
            name: {key: alone[name][key] for key in SHOWN} | {"temperature": t}
            for (name, t) in zip(alone, temperatures, strict=True)
        }
        on_main_process(lambda: _write(part, weights, shown, test))
        return {
            "model": " + ".join(short_name(result["model"]) for result in alone.values()),
            "fine_tuned": any(result["fine_tuned"] for result in alone.values()),
            "seconds": time.monotonic()
            - start
            + sum(result["seconds"] for result in alone.values()),
            "metric": task.spec.metric,
            "test": score_of(task.spec, test, task.test),
            "validation": score_of(
                task.spec, mean_logits(validation, temperatures), task.validation
            ),
            "parameters": sum(result["parameters"] for result in alone.values()),
            "max_length": max(member.max_length for member in members),
            "teachers": shown,
        }

    return stage(run.teacher, inputs, make, stages=stages)


SHOWN = ("model", "metric", "test", "validation", "parameters", "max_length")


def _write(part: Path, weights: dict[str, str], shown: dict[str, Any], test: np.ndarray) -> None:
    members = [
        {
            "name": name,
            "weights": weights[name],
            "temperature": one["temperature"],
            "max_length": one["max_length"],
        }
        for name, one in shown.items()
    ]
    write_atomic(part / ENSEMBLE_FILE, json_text({"teachers": members}))
    np.save(part / "test_logits.npy", test)


def teacher_hash(run: RunDir) -> str:
    """What decides the answers of a run's teacher: its weights, or those of all teachers and their temperatures."""
    return hash_files(run.teacher, (ENSEMBLE_FILE,) if run.teachers else WEIGHTS)
