"""Prepare a run's teachers; several are combined by the mean of their calibrated logits.

teacher-NAME/            each of several teachers: the same stage as `teacher/` of a single one
teacher/ensemble.json    names, weights and temperatures: they decide the combined logits
teacher/test_logits.npy  the combined logits on the test split
teacher/stage.json       inputs and scores
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast

from kdedge.data.task import Task
from kdedge.io.atomic import hash_files, json_text, write_atomic
from kdedge.io.paths import short_name
from kdedge.nn.text_model import TextClassifier, score_of
from kdedge.nn.tokenization import replace_mask_token
from kdedge.run.layout import RunDir
from kdedge.run.processes import on_main_process
from kdedge.run.stage import DEFAULT_STAGES, WEIGHTS, StageContext, read_result, stage
from kdedge.teacher.finetune import Teacher, load_teacher, prepare_teacher
from kdedge.teacher.result import MemberResult, TeacherResult
from kdedge.teacher.temperature import HIGHEST, LOWEST, fit_temperature, mean_logits

ENSEMBLE_FILE = "ensemble.json"


@dataclass(frozen=True)
class Ensemble(TextClassifier):
    """Several teachers; the logits are the mean of their calibrated logits.

    model, tokenizer and max_length are the first teacher's: students start from it.
    """

    members: tuple[TextClassifier, ...]
    temperatures: tuple[float, ...]

    def predict_logits(
        self, texts: Sequence[str], pairs: Sequence[str] | None, **settings: Any
    ) -> np.ndarray:
        """Compute the combined logits (N, C) float32; each member uses its own tokenizer."""
        logits = []
        for member in self.members:
            member_texts = self._for_member(texts, member.tokenizer)
            member_pairs = None if pairs is None else self._for_member(pairs, member.tokenizer)
            logits.append(member.predict_logits(member_texts, member_pairs, **settings))
        return mean_logits(logits, self.temperatures)

    def _for_member(
        self, texts: Sequence[str], tokenizer: PreTrainedTokenizerFast
    ) -> Sequence[str]:
        return tuple(replace_mask_token(texts, self.tokenizer, tokenizer))


def prepare_teachers(run: RunDir, task: Task, *, stages: StageContext = DEFAULT_STAGES) -> Teacher:
    """Run the stages of the recipe's teachers and load the result: one teacher, or an ensemble."""
    recipe = run.recipe
    if not run.teachers:
        (config,) = recipe.teacher
        prepare_teacher(config, task, run.teacher, seed=recipe.seed, stages=stages)
        return load_teacher(run.teacher, task.spec, config.max_length)
    folders = list(run.teachers.values())
    for config, folder in zip(recipe.teacher, folders, strict=True):
        prepare_teacher(config, task, folder, seed=recipe.seed, stages=stages)
    members = []
    for config, folder in zip(recipe.teacher, folders, strict=True):
        members.append(load_teacher(folder, task.spec, config.max_length))
    result = _prepare_ensemble(run, task, members, stages=stages)
    first = members[0]
    return Ensemble(
        first.model,
        first.tokenizer,
        first.max_length,
        members=tuple(members),
        temperatures=tuple(result.teachers[name].temperature for name in run.teachers),
    )


def _prepare_ensemble(
    run: RunDir, task: Task, members: list[TextClassifier], *, stages: StageContext
) -> TeacherResult:
    """Run the stage `teacher/` of several teachers: fit temperatures, score the mean."""
    hashes = {name: hash_files(folder, WEIGHTS) for name, folder in run.teachers.items()}
    inputs = {
        "teachers": hashes,
        "max_lengths": [member.max_length for member in members],
        "data": task.content_hash(),
    }

    def make(part: Path) -> dict[str, Any]:
        start = time.monotonic()
        validation, test, temperatures = [], [], []
        results: list[TeacherResult] = []
        measured: dict[str, MemberResult] = {}
        for (name, folder), member in zip(run.teachers.items(), members, strict=True):
            result = read_result(folder, TeacherResult)
            logits = member.predict_logits(task.validation.texts, task.validation.pairs)
            temperature = fit_temperature(logits, task.validation.labels, task.spec.kind)
            stages.progress.say(_member_line(name, result, temperature))
            validation.append(logits)
            test.append(np.load(folder / "test_logits.npy", allow_pickle=False))
            temperatures.append(temperature)
            results.append(result)
            measured[name] = _member_result(result, temperature)
        test_logits = mean_logits(test, temperatures)
        on_main_process(lambda: _write(part, hashes, measured, test_logits))
        validation_logits = mean_logits(validation, temperatures)
        seconds = time.monotonic() - start
        ensemble = TeacherResult(
            model=" + ".join(short_name(result.model) for result in results),
            fine_tuned=any(result.fine_tuned for result in results),
            seconds=seconds + sum(result.seconds for result in results),
            metric=task.spec.metric,
            test=score_of(task.spec, test_logits, task.test),
            validation=score_of(task.spec, validation_logits, task.validation),
            parameters=sum(result.parameters for result in results),
            max_length=max(member.max_length for member in members),
            teachers=measured,
        )
        return ensemble.to_json()

    return TeacherResult.from_json(stage(run.teacher, inputs, make, stages=stages))


def _member_line(name: str, result: TeacherResult, temperature: float) -> str:
    line = f"teacher-{name}: {result.metric} {result.test:.4f}, temperature {temperature:.4g}"
    if temperature <= LOWEST:
        line += ": it makes no error on the validation split"
    elif temperature >= HIGHEST:
        line += ": it is no better than chance on the validation split"
    return line


def _member_result(result: TeacherResult, temperature: float) -> MemberResult:
    return MemberResult.from_json(result.to_json() | {"temperature": temperature})


def _write(
    part: Path,
    hashes: dict[str, str],
    measured: dict[str, MemberResult],
    test_logits: np.ndarray,
) -> None:
    members = []
    for name, result in measured.items():
        members.append(
            {
                "name": name,
                "weights": hashes[name],
                "temperature": result.temperature,
                "max_length": result.max_length,
            }
        )
    write_atomic(part / ENSEMBLE_FILE, json_text({"teachers": members}))
    np.save(part / "test_logits.npy", test_logits)


def teacher_hash(run: RunDir) -> str:
    """Hash what decides the logits of a run's teacher.

    That is its weights; for several teachers their weights and temperatures.
    """
    return hash_files(run.teacher, (ENSEMBLE_FILE,) if run.teachers else WEIGHTS)
