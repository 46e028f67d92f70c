"""Exports trained students as checked bundles, and the teacher's bundle to measure them against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdedge.export.build import build_bundle
from kdedge.export.int8_parity import overflows
from kdedge.export.options import DEFAULT_OPTIONS, TEACHER_OPTIONS, ExportOptions
from kdedge.export.pack import ExportInput
from kdedge.export.prepare import apply_qat, apply_vocab_trim, student_config
from kdedge.export.provenance import provenance_of
from kdedge.export.sbom import require_sbom_library

from kdedge import __version__
from kdedge.data import load_task
from kdedge.data.task import Task
from kdedge.errors import Interrupted, KdedgeError, UsageError
from kdedge.io.atomic import recover_dir, remove
from kdedge.io.model_files import hash_model
from kdedge.nn.text_model import (
    TextClassifier,
    check_stored_logits,
    read_measured,
    read_validation_logits,
)
from kdedge.nn.tokenization import load_tokenizer
from kdedge.recipe import QuantizeConfig
from kdedge.run.layout import RunDir
from kdedge.run.stage import DEFAULT_STAGES, StageContext, read_result
from kdedge.runtime import Bundle
from kdedge.runtime.evaluation import EvaluationTexts
from kdedge.runtime.manifest_fields import FORMAT
from kdedge.students.build import load_student
from kdedge.teacher.finetune import load_teacher
from kdedge.teacher.result import TeacherResult

__all__ = ["DEFAULT_OPTIONS", "ExportOptions", "export_run"]


def export_run(
    run: RunDir,
    students: Sequence[str],
    *,
    options: ExportOptions = DEFAULT_OPTIONS,
    task: Task | None = None,
    stages: StageContext = DEFAULT_STAGES,
) -> list[Path]:
    """Export students of a run, and its teacher once.

    Args:
        run: The run.
        students: Names of students of the run.
        options: What their bundles contain.
        task: The run's task; default: it is loaded.
        stages: Whether to export unchanged students again, and where messages go.

    Returns:
        The folders of the students' bundles.

    Raises:
        CheckFailed: If a file does not do what its model does. The old bundle is unchanged.
        IntegrityError: If a file of a student or teacher has changed since it was written, or
            its weights contradict its stored results.
        UsageError: If an option does not fit these students or this CPU.
    """
    check_overflow(options)
    if options.sbom:
        require_sbom_library()
    recipe = run.recipe
    if task is None:
        task = load_task(recipe.data, recipe.task, name=recipe.name, seed=recipe.seed)
    read_measured(run.teacher, task)  # Raises if the data or a file has changed since.
    _export_teacher(run, task, stages=stages)
    return [_export_student(run, name, task, options, stages=stages) for name in students]


def check_overflow(options: ExportOptions) -> None:
    """Raise UsageError if this CPU cannot check weights of so many bits."""
    if options.int8 and overflows(options.scheme.largest_weight):
        raise UsageError(
            f"products of {options.scheme.weight_bits}-bit weights overflow on this CPU, so an "
            "int8 file with them cannot be checked here",
            str(options.scheme),
            "use --weight-bits 7, or export on a CPU with VNNI",
        )


def _export_student(
    run: RunDir, name: str, task: Task, options: ExportOptions, *, stages: StageContext
) -> Path:
    folders = run.students[name]
    trained, bundle = folders.student, folders.bundle
    recover_dir(bundle)
    folders.require_trained()
    run.require_same_teacher(name)
    recipe = _quantize_config(run, name, options)
    teacher = read_result(run.teacher, TeacherResult)
    student, logits = read_measured(trained, task)
    sources = _sources(run, trained, task, student.max_length, options)
    sources["quantize"] = recipe.model_dump(mode="json")
    if not stages.force and _is_current(bundle, sources):
        stages.progress.say(f"{bundle}: same inputs, kept")
        return bundle
    model, tokenizer = load_student(trained), load_tokenizer(trained)
    measured = TextClassifier(model.eval(), tokenizer, student.max_length).predict_logits(
        task.test.texts, task.test.pairs
    )
    check_stored_logits(trained, logits, measured, task)
    source = ExportInput(
        model,
        tokenizer,
        task.spec,
        student.max_length,
        f"{run.recipe.name}-{name}" if len(run.students) > 1 else run.recipe.name,
        _scores(task, teacher.test, student.test),
        {"model": teacher.model},
        sources,
        largest_drop=recipe.largest_drop,
        calibrated=True,
        teacher_validation=read_validation_logits(run.teacher, task),
        provenance=provenance_of(run, student_config(run, name)) if options.sbom else None,
        evaluation=_evaluation(run, task) if options.with_eval else None,
        clean=run.recipe.data.clean_labelled,
    )
    source = apply_vocab_trim(run, task, recipe, source, progress=stages.progress)
    quantized = None
    if options.static_int8:
        quantized = apply_qat(run, name, task, recipe, options.scheme, source, stages=stages)
    stages.progress.say(f"{source.name}: writing the graph")
    build_bundle(source, task, bundle, options, quantized=quantized, progress=stages.progress)
    return bundle


def _evaluation(run: RunDir, task: Task) -> EvaluationTexts:
    """Return the test split with the teacher's stored logits."""
    logits = read_measured(run.teacher, task)[1]
    return EvaluationTexts(task.test.texts, task.test.pairs, task.test.labels, logits)


def _quantize_config(run: RunDir, name: str, options: ExportOptions) -> QuantizeConfig:
    """Return the recipe's section `student.quantize`, changed by the options."""
    changes: dict[str, Any] = {}
    if not options.tune:
        changes["steps"] = 0
    if options.trim_vocab is not None:
        changes["trim_vocab"] = options.trim_vocab
    return student_config(run, name).quantize.model_copy(update=changes)


def _export_teacher(run: RunDir, task: Task, *, stages: StageContext) -> None:
    """Export the teacher for `kdedge bench`; students are exported even if this fails."""
    bundle = run.teacher_bundle
    result = read_result(run.teacher, TeacherResult)
    max_length = result.max_length
    sources = _sources(run, run.teacher, task, max_length, TEACHER_OPTIONS)
    if not stages.force and _is_current(bundle, sources):
        stages.progress.say(f"{bundle}: same inputs, kept")
        return
    try:
        stages.progress.say("teacher: writing the graph, to measure students against")
        teacher = load_teacher(run.teacher, task.spec, max_length)
        source = ExportInput(
            teacher.model.cpu(),
            teacher.tokenizer,
            task.spec,
            max_length,
            "teacher",
            _scores(task, result.test, result.test),
            {"model": result.model},
            sources,
            calibrated=True,
            clean=run.recipe.data.clean_labelled,
        )
        build_bundle(source, task, bundle, TEACHER_OPTIONS, progress=stages.progress)
    except Interrupted:
        raise
    except Exception as error:
        # Exporters and quantizers have errors of their own for unknown architectures.
        if not _is_current(bundle, sources):
            remove(bundle)  # The bundle of another teacher must not be used instead.
        reason = " ".join(str(error).split())[:300]
        stages.progress.say(
            f"teacher: not exported ({type(error).__name__}: {reason}); measured in torch only"
        )


def _scores(task: Task, teacher: float, student: float) -> dict[str, Any]:
    return {
        "metric": task.spec.metric,
        "split_size": len(task.test),
        "teacher": teacher,
        "student": student,
    }


def _sources(
    run: RunDir, folder: Path, task: Task, max_length: int, options: ExportOptions
) -> dict[str, Any]:
    """Return what decides the content of a bundle: inputs, options and versions."""
    sources = {
        "weights": hash_model(folder),
        "max_length": max_length,
        "precisions": list(options.precisions),
        "scheme": options.scheme.to_json(),
        "golden": options.golden_from,
        "test": task.test.content_hash(),
        "validation": task.validation.content_hash(),
        "format": FORMAT,
        "kdedge": __version__,
    }
    if options.sbom:
        sources["sbom"] = True
    if options.with_eval:
        sources["evaluation"] = True
    if run.recipe.data.clean_labelled:
        sources["clean"] = list(run.recipe.data.clean_labelled)
    return sources


def _is_current(bundle: Path, sources: Mapping[str, Any]) -> bool:
    """Whether an intact bundle was made from these sources."""
    try:
        opened = Bundle.open(bundle)
        opened.verify_files()
    except KdedgeError:
        return False
    return bool(opened.manifest.sources == sources)
