"""`kdedge.export_bundle`: write students, or any fine-tuned classifier, as int8 ONNX bundles."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kdedge.api.examples import examples_of_task, read_examples
from kdedge.api.process import restored_process
from kdedge.api.progress import progress_of
from kdedge.api.run import Run
from kdedge.errors import UsageError
from kdedge.export.export import export_run
from kdedge.export.from_model import CalibrationTexts, classifier_spec, export_model
from kdedge.export.options import ExportOptions
from kdedge.export.scheme import QuantScheme
from kdedge.run.layout import RunDir
from kdedge.run.progress import Progress
from kdedge.run.stage import StageContext
from kdedge.runtime.bundle import Bundle
from kdedge.wording import nearest_or_known


class ExportSettings(TypedDict, total=False):
    """What a bundle contains.

    Attributes:
        precisions: Files to pack: `fp32`, `int8`, `fp16`, `portable`; default: `("auto",)`, which
            is int8, or fp32 if int8 loses too much.
        scheme: static fixes activation ranges at export; dynamic computes them per batch.
        weight_bits: Bits of int8 weights; 8 bits overflow on CPUs without VNNI; default: 7.
        tune: Whether quantization-aware training may follow calibration; default: True.
        trim_vocab: Pieces of the vocabulary to keep; default: as the recipe says, else all.
        golden_from: Texts of golden.json: `neutral`, which come with kdedge, or 16 of the `test`
            split; default: neutral.
        with_eval: Whether to pack the texts, labels and teacher's logits of the test split, for
            `kdedge.bench` on a device; default: False.
    """

    precisions: tuple[str, ...]
    scheme: Literal["static", "dynamic"]
    weight_bits: Literal[7, 8]
    tune: bool
    trim_vocab: int | None
    golden_from: Literal["neutral", "test"]
    with_eval: bool


class ModelInputs(TypedDict, total=False):
    """The arguments of `kdedge.export_bundle` for a model in memory.

    Attributes:
        tokenizer: The model's fast tokenizer.
        calibration: Texts of the task, or `(texts, labels)`, a `datasets.Dataset` or a
            DataFrame: a few hundred set the ranges of the int8 file, and all check the files.
        out: The folder of the bundle; default: bundle.
        name: Name of the bundle; default: model.
    """

    tokenizer: Any
    calibration: Any
    out: str | Path
    name: str


class ExportArguments(ExportSettings, ModelInputs, total=False):
    """All keyword arguments of `kdedge.export_bundle`."""


MODEL_NAMES = tuple(ModelInputs.__annotations__)
SETTING_NAMES = tuple(ExportSettings.__annotations__)


def export_bundle(
    source: Run | PreTrainedModel | str | Path,
    student: str | None = None,
    *,
    force: bool = False,
    progress: bool | Progress = True,
    **settings: Unpack[ExportArguments],
) -> Bundle:
    """Write a student as ONNX files, compare them with torch, and pack a bundle.

    An unchanged student is not exported again. The run's teacher is exported too, so that
    `kdedge.bench` can compare with its fastest form.

    Args:
        source: A run, a folder of one, or a fine-tuned transformers classifier in memory.
        student: The student to export; needed if the run has several.
        force: Export again even if nothing has changed.
        progress: Whether to show progress, or an object that receives it.
        **settings: See `ExportSettings`; for a model in memory also `ModelInputs`.

    Returns:
        The verified bundle. Its files are in `bundle.folder`.

    Raises:
        UsageError: If the run, the student or a setting is wrong; names the students.
        DataError: If the texts for calibration cannot be used.
        CheckFailed: If a file does not do what its model does. The old bundle is unchanged.
        IntegrityError: If a file of a finished stage was changed.
        MachineError: If this machine lacks something, or the run is in use.

    Example:
        ```python
        bundle = kdedge.export_bundle(run)
        bundle = kdedge.export_bundle("runs/quickstart", "bilstm", precisions=("fp32",))
        bundle = kdedge.export_bundle(model, tokenizer=tokenizer, calibration=texts, out="b")
        ```
    """
    _check_settings(settings)
    options = _options(settings)
    stages = StageContext(force, progress_of(progress))
    if isinstance(source, PreTrainedModel):
        if student is not None:
            raise UsageError("a model is no run and has no students", student, "leave student out")
        return _export_model(source, settings, options, stages.progress)
    _reject_model_inputs(settings)
    run, named = _open(source)
    return _export(run, [_chosen(run, named, student)], options, stages)[0]


def export_bundles(
    source: Run | str | Path,
    *,
    force: bool = False,
    progress: bool | Progress = True,
    **settings: Unpack[ExportSettings],
) -> dict[str, Bundle]:
    """Do the same as `export_bundle` for every student of a run.

    Args:
        source: A run, or a folder of one.
        force: Export again even if nothing has changed.
        progress: Whether to show progress, or an object that receives it.
        **settings: See `ExportSettings`.

    Returns:
        Student -> bundle.

    Raises:
        KdedgeError: As `export_bundle`.

    Example:
        ```python
        for name, bundle in kdedge.export_bundles("runs/quickstart").items():
            print(name, bundle.manifest.scores["int8"])
        ```
    """
    _check_settings(settings)
    _reject_model_inputs(settings)
    run, named = _open(source)
    stages = StageContext(force, progress_of(progress))
    bundles = _export(run, named, _options(settings), stages)
    return dict(zip(named, bundles, strict=True))


def _check_settings(settings: Mapping[str, Any]) -> None:
    """Raise UsageError that names an unknown setting."""
    known = [*SETTING_NAMES, *MODEL_NAMES]
    for name in settings:
        if name not in known:
            hint = nearest_or_known(name, known)
            raise UsageError("the export has no such setting", name, hint)


def _reject_model_inputs(settings: Mapping[str, Any]) -> None:
    for name in settings:
        if name in MODEL_NAMES:
            raise UsageError(
                f"{name} is for a model in memory",
                "the source is a run",
                f"leave {name} out: a run knows its own",
            )


def _options(settings: Mapping[str, Any]) -> ExportOptions:
    values = {name: settings[name] for name in SETTING_NAMES if name in settings}
    scheme = values.pop("scheme", "static")
    values["scheme"] = QuantScheme.named(scheme, values.pop("weight_bits", None))
    if isinstance(values.get("precisions"), str):
        raise UsageError(
            "precisions is a tuple of names",
            repr(values["precisions"]),
            f"give precisions=({values['precisions']!r},)",
        )
    return ExportOptions(**values)


def _open(source: Any) -> tuple[RunDir, list[str]]:
    """Return a run, and the students that a folder names."""
    folder = source.folder if isinstance(source, Run) else source
    if not isinstance(folder, str | Path):
        raise UsageError(
            "the export needs a run, a folder of one, or a transformers classifier",
            f"a {type(source).__name__}",
            'kdedge.export_bundle("runs/quickstart")',
        )
    return RunDir.open(Path(folder))


def _chosen(run: RunDir, named: list[str], student: str | None) -> str:
    """Return the student to export. Raises UsageError that lists the students."""
    if student is None and len(named) == 1:
        return named[0]
    if student in named:
        return student
    problem = "the run has no such student"
    if student is None:
        problem = "the run has several students"
    raise UsageError(
        problem,
        f"{student or run.folder}; students: {', '.join(named)}",
        f"kdedge.export_bundle(run, {named[0]!r}), or kdedge.export_bundles(run) for all",
    )


def _export(
    run: RunDir, students: list[str], options: ExportOptions, stages: StageContext
) -> list[Bundle]:
    with restored_process(), run.locked():
        if run.recipe.threads:
            torch.set_num_threads(run.recipe.threads)  # QAT is training
        folders = export_run(run, students, options=options, stages=stages)
    return [Bundle.open(folder) for folder in folders]


def _export_model(
    model: PreTrainedModel, settings: ExportArguments, options: ExportOptions, progress: Progress
) -> Bundle:
    """Export a classifier in memory."""
    tokenizer = settings.get("tokenizer")
    if not isinstance(tokenizer, PreTrainedTokenizerBase) or not tokenizer.is_fast:
        raise UsageError(
            "a model in memory needs its fast tokenizer",
            f"tokenizer is a {type(tokenizer).__name__}",
            "give tokenizer=AutoTokenizer.from_pretrained(...)",
        )
    if not type(model).__name__.endswith("ForSequenceClassification"):
        raise UsageError(
            "only a fine-tuned classifier can be exported",
            f"the model is a {type(model).__name__}",
            "give an AutoModelForSequenceClassification, or distill it first",
        )
    if settings.get("calibration") is None:
        raise UsageError(
            "the export of a model needs texts",
            "calibration is missing",
            "give calibration=texts, or (texts, labels): a few hundred texts of the task",
        )
    given = read_examples(settings["calibration"], "calibration")
    has_pairs = given.pairs is not None
    spec = classifier_spec(model.config, settings.get("name", "model"), pair=has_pairs)
    texts = examples_of_task(given, spec)
    pairs = None if texts.pairs is None else tuple(texts.pairs)
    calibration = CalibrationTexts(tuple(texts.texts), pairs, texts.labels)
    folder = Path(settings.get("out", "bundle"))
    with restored_process():
        export_model(
            model, tokenizer, spec, calibration, folder, options=options, progress=progress
        )
    return Bundle.open(folder)
