"""From trained students to checked bundles, and the teacher's own bundle to measure them against."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from kdedge.export.dynamic_int8 import quantize
from kdedge.export.graph import to_onnx
from kdedge.export.int8_parity import check_integers, overflows
from kdedge.export.int8_writer import to_int8
from kdedge.export.pack import ExportInput, begin_bundle, file_score, finish_bundle, golden_answers
from kdedge.export.parity import (
    GROUP,
    PADDED,
    check_batch_independence,
    check_parity,
    check_same_answers,
    compare_logits,
    measure_batch_dependence,
    parity_batches,
    spread_over,
)
from kdedge.export.portable import to_portable
from kdedge.export.prepare import apply_qat, apply_vocab_trim
from kdedge.export.scheme import QuantScheme
from kdedge.export.variants import VariantDecision, evaluate_variants
from kdedge.export.weightonly import half, weight_only

from kdedge import __version__
from kdedge.data import load_task
from kdedge.data.task import Task
from kdedge.errors import (
    CheckFailed,
    Interrupted,
    KdedgeError,
    MachineError,
    UsageError,
    first_line,
)
from kdedge.io.atomic import hash_files, recover_dir
from kdedge.nn.text_model import read_measured
from kdedge.nn.tokenization import load_tokenizer
from kdedge.recipe import QuantizeConfig, TinyBertConfig
from kdedge.run.layout import RunDir
from kdedge.run.progress import Progress
from kdedge.run.stage import DEFAULT_STAGES, WEIGHTS, StageContext, read_stage
from kdedge.runtime import Bundle, Classifier
from kdedge.runtime.bundle import FORMAT, PRECISIONS
from kdedge.students.bilstm import BiLstmForSequenceClassification
from kdedge.students.build import load_student
from kdedge.teacher.finetune import load_teacher

COMPARED_TEXTS = 128
"""Texts whose every activation is compared between torch and the int8 file."""

INT8 = QuantScheme(activations="static")


@dataclass(frozen=True)
class ExportOptions:
    """What to put into a student's bundle. precisions: of fp32, fp16, int8, portable; the fp32 graph passes its gate in any case.

    tune: whether quantization-aware tuning follows calibration.
    trim_vocab: pieces to keep of a student's vocabulary; none: as its recipe says.
    attention: `float` or `integers`, of students that have attention; none: as their recipes say, of which scheme then tells.
    """

    precisions: tuple[str, ...] = ("fp32", "int8")
    scheme: QuantScheme = INT8
    tune: bool = True
    trim_vocab: int | None = None
    attention: Literal["float", "integers"] | None = None

    def __post_init__(self) -> None:
        if self.scheme.attention not in ("float", self.attention):
            raise UsageError(
                "a student's recipe would overrule this scheme",
                f"scheme.attention = {self.scheme.attention}",
                "say Choice(attention=...)",
            )

    @property
    def in_fixed_ranges(self) -> bool:
        """Whether there is an int8 file that fake-quant has a say in."""
        return self.scheme.static and "int8" in self.precisions


DEFAULT_OPTIONS = ExportOptions()

TEACHER_OPTIONS = ExportOptions(scheme=QuantScheme())
"""Of the teacher's bundle, whatever is chosen for students: it is what they are measured against. Dynamic: it is read by no fake-quant."""


def export_run(
    run: RunDir,
    students: Sequence[str],
    *,
    choice: ExportOptions = DEFAULT_OPTIONS,
    task: Task | None = None,
    stages: StageContext = DEFAULT_STAGES,
) -> list[Path]:
    """Export students of a run, and its teacher once; returns the students' bundle folders.

    Raises GateFailed when a graph does not answer as its model does; the former bundle is intact then.
    """
    recipe = run.recipe
    _reject_idle_options(
        choice,
        any(
            isinstance(student, TinyBertConfig)
            for student in recipe.student
            if recipe.student_name(student) in students
        ),
    )
    if (
        choice.scheme.activations != "float"
        and "int8" in choice.precisions
        and overflows(choice.scheme.largest_weight)
    ):
        what = f"products of {choice.scheme.weight_bits}-bit weights overflow on this CPU, so that no int8 file of them can be checked here"
        raise UsageError(
            what, str(choice.scheme), "use --weight-bits 7, or export on a CPU with VNNI"
        )
    task = task or load_task(recipe.data, recipe.task, name=recipe.name, seed=recipe.seed)
    _export_teacher(run, task, stages=stages)
    return [_export_student(run, name, task, choice, stages=stages) for name in students]


def _reject_idle_options(choice: ExportOptions, attends: bool) -> None:
    """Raises UsageError for what would be ignored. attends: whether a student has attention."""
    if choice.attention and not (attends and choice.in_fixed_ranges):
        beside = (
            choice.scheme if "int8" in choice.precisions else f"--precision {choice.precisions[0]}"
        )
        found = (
            f"--attention {choice.attention} with {beside}"
            if attends
            else "a BiLSTM has no attention"
        )
        raise UsageError(
            "attention is rounded in a TinyBERT's int8 file of fixed ranges alone",
            found,
            "leave --attention out",
        )
    if "int8" not in choice.precisions and (choice.scheme != INT8 or not choice.tune):
        found = f"--precision {choice.precisions[0]} with {'--no-qat' if not choice.tune else choice.scheme}"
        raise UsageError(
            "there is no int8 file to be made in this way", found, "leave one of the two out"
        )
    if not choice.tune and not choice.scheme.static:
        raise UsageError(
            "nothing is tuned without fixed ranges",
            f"--no-qat with {choice.scheme}",
            "leave --no-qat out",
        )
    if "portable" in choice.precisions and (
        "int8" not in choice.precisions or choice.scheme != INT8
    ):
        found = (
            f"--portable with {choice.scheme}"
            if "int8" in choice.precisions
            else f"--portable with --precision {choice.precisions[0]}"
        )
        raise UsageError(
            "a portable file stands beside an int8 one of fixed ranges and 7-bit weights",
            found,
            "leave one of the two out",
        )


def _export_student(
    run: RunDir, name: str, task: Task, choice: ExportOptions, *, stages: StageContext
) -> Path:
    home = run.student_dirs[name]
    source, bundle = home / "student", home / "bundle"
    recover_dir(bundle)
    title = f"{run.recipe.name}-{name}" if len(run.student_dirs) > 1 else run.recipe.name
    if not (source / "stage.json").is_file():
        raise UsageError(
            "this student has not been trained yet",
            str(source),
            "run `kdedge distill` with the run's recipe first",
        )
    teacher, student = read_measured(run.teacher, task)[0], read_measured(source, task)[0]
    quantize_recipe = _quantize_recipe(run, name, choice)
    if choice.in_fixed_ranges:
        choice = replace(
            choice,
            attention=quantize_recipe.attention,
            scheme=replace(choice.scheme, attention=quantize_recipe.attention),
        )
    made_from = _made_from(source, choice, task, student["max_length"]) | {
        "quantize": quantize_recipe.model_dump(mode="json")
    }
    if not stages.force and _is_current(bundle, made_from, student=True):
        stages.progress.say(f"{bundle}: same inputs, kept")
        return bundle
    scores = {
        "metric": task.spec.metric,
        "split_size": len(task.test),
        "teacher": teacher["test"],
        "student": student["test"],
    }
    model, tokenizer = load_student(source), load_tokenizer(source)
    made = ExportInput(
        model,
        tokenizer,
        task.spec,
        student["max_length"],
        title,
        scores,
        {"model": teacher["model"], **made_from},
        largest_drop=quantize_recipe.largest_drop,
    )
    made = apply_vocab_trim(run, task, quantize_recipe, made, progress=stages.progress)
    if choice.in_fixed_ranges:
        made = apply_qat(run, name, task, quantize_recipe, choice.scheme, made, stages=stages)
    stages.progress.say(f"{title}: writing the graph")
    _check_and_pack(made, choice, task, bundle, stages.progress)
    return bundle


def _quantize_recipe(run: RunDir, name: str, choice: ExportOptions) -> QuantizeConfig:
    student = next(
        student for student in run.recipe.student if run.recipe.student_name(student) == name
    )
    changed: dict[str, Any] = {} if choice.tune else {"steps": 0}
    if choice.trim_vocab is not None:
        changed["trim_vocab"] = choice.trim_vocab
    if choice.attention and isinstance(student, TinyBertConfig):
        changed["attention"] = choice.attention
    return student.quantize.model_copy(update=changed)


def _export_teacher(run: RunDir, task: Task, *, stages: StageContext) -> None:
    """The bundle that `kdedge bench` runs the teacher from; a teacher that cannot be exported stops nobody."""
    bundle = run.shared / "teacher-bundle"
    result = read_stage(run.teacher)["result"]
    if run.teachers:
        _remove_other(bundle, {"weights": None})
        stages.progress.say(
            "teacher: several teachers make no single file, so they will be measured in torch alone"
        )
        return
    made_from = _made_from(run.teacher, TEACHER_OPTIONS, task, result["max_length"])
    if not stages.force and _is_current(bundle, made_from):
        stages.progress.say(f"{bundle}: same inputs, kept")
        return
    scores = {
        "metric": task.spec.metric,
        "split_size": len(task.test),
        "teacher": result["test"],
        "student": result["test"],
    }
    try:
        stages.progress.say("teacher: writing the graph, to measure students against")
        teacher = load_teacher(run.teacher, task.spec, result["max_length"])
        model = teacher.model.cpu()
        made = ExportInput(
            model,
            teacher.tokenizer,
            task.spec,
            result["max_length"],
            "teacher",
            scores,
            {"model": result["model"], **made_from},
        )
        _check_and_pack(made, TEACHER_OPTIONS, task, bundle, stages.progress)
    except Interrupted:
        raise
    except (
        Exception
    ) as error:  # exporters and quantizers fail on unknown architectures in ways of their own
        _remove_other(bundle, made_from)
        said = (
            f"{error.message}: {error.detail}"
            if isinstance(error, KdedgeError)
            else f"{type(error).__name__}: {first_line(error)}"
        )
        stages.progress.say(
            f"teacher: not exported, so it will be measured in torch alone ({said})"
        )


def _remove_other(bundle: Path, made_from: Mapping[str, Any]) -> None:
    """A bundle of another teacher must not stand in for this one."""
    if bundle.exists() and not _is_current(bundle, made_from):
        shutil.rmtree(bundle)


def _check_and_pack(
    made: ExportInput, choice: ExportOptions, task: Task, bundle: Path, progress: Progress
) -> None:
    fp32 = to_onnx(made.model)
    graphs = {"fp32": fp32}
    if "int8" in choice.precisions:
        graphs["int8"] = _int8_graph(fp32, choice.scheme, made)
    if "fp16" in choice.precisions:
        graphs["fp16"] = half(fp32)
    if "portable" in choice.precisions and made.quantized is not None:
        graphs["portable"] = to_portable(made.quantized)
    made = replace(made, graphs=graphs, scheme=choice.scheme.to_json())
    try:
        _pack_checked(made, choice, task, bundle, progress)
    except OSError as error:
        hint = "free space or choose another folder; what was there before is intact"
        raise MachineError(
            "the bundle cannot be written", f"{bundle}: {error.strerror}", hint
        ) from error


def _int8_graph(fp32: onnx.ModelProto, scheme: QuantScheme, made: ExportInput) -> onnx.ModelProto:
    if made.quantized is not None:
        return to_int8(made.quantized)
    return (
        weight_only(fp32, scheme.weight_bits)
        if scheme.activations == "float"
        else quantize(fp32, scheme)
    )


def _pack_checked(
    made: ExportInput, choice: ExportOptions, task: Task, bundle: Path, progress: Progress
) -> None:
    part = bundle.with_name(bundle.name + ".part")
    test = task.test
    opened = begin_bundle(part, made)
    classifiers = {name: Classifier.from_bundle(opened, name) for name in made.graphs}
    fp32 = classifiers["fp32"]

    def encode(indices: Sequence[int]) -> Mapping[str, np.ndarray]:
        return fp32.encode(
            [test.texts[i] for i in indices],
            None if test.pairs is None else [test.pairs[i] for i in indices],
        )

    lengths = token_lengths(fp32, test.texts, test.pairs)
    batches = parity_batches(encode, lengths, made.max_length)
    parity = dict(made.parity) | {
        "fp32": check_parity(made.model, fp32.run, batches, task.spec.kind).to_json()
    }
    progress.say(
        f"{made.name}: the fp32 file answers as torch does (largest difference {parity['fp32']['max_abs_logit']:.2g})"
    )
    scores = dict(made.scores)
    logits: dict[str, np.ndarray] = {}
    for name, classifier in classifiers.items():
        scores[name], logits[name] = file_score(classifier, test)
        progress.say(f"{made.name}: {name} file scores {scores[name]:.4f} {task.spec.metric}")
    if "int8" in logits:
        padded_texts = (
            PADDED if made.quantized is not None else GROUP
        )  # where it filters nothing, and a teacher is slow, a few tell enough
        beside = measure_batch_dependence(
            classifiers["int8"].run, encode, lengths, task.spec.kind, padded_texts=padded_texts
        )
        parity["int8"] = (
            compare_logits(logits["fp32"], logits["int8"], task.spec.kind).to_json() | beside
        )
    if made.quantized is not None:
        check_batch_independence(
            parity["int8"], exact=isinstance(made.quantized, BiLstmForSequenceClassification)
        )
        parity["int8"] |= check_integers(
            made.quantized,
            opened.contents[PRECISIONS["int8"]],
            [encode([i]) for i in spread_over(lengths, COMPARED_TEXTS)],
            task.spec.kind,
        )
        parity["int8"] |= {"tuning": dict(made.tuning)}
    if "fp16" in logits:
        parity["fp16"] = check_same_answers(
            "fp16", logits["fp16"], "fp32", logits["fp32"], task.spec.kind
        )
    if "portable" in logits:
        parity["portable"] = check_same_answers(
            "portable", logits["portable"], "int8", logits["int8"], task.spec.kind
        )
    packed = {name: classifiers[name] for name in classifiers if name in choice.precisions}
    if made.largest_drop is not None:
        verdict = evaluate_variants(opened, made, task)
        parity["ways"] = verdict.to_json()
        packed = _without_what_does_not_pay(made.name, verdict, packed, progress)
    made = replace(
        made, graphs={name: made.graphs[name] for name in packed}, scores=scores, parity=parity
    )
    finish_bundle(part, bundle, made, golden_answers(packed, test))


def _without_what_does_not_pay(
    name: str, verdict: VariantDecision, packed: dict[str, Classifier], progress: Progress
) -> dict[str, Classifier]:
    if verdict.slow:
        progress.say(f"{name}: int8 saves bytes alone here: {verdict.slow}")
    if not verdict.loss_reason:
        return packed
    if "fp32" not in packed:
        raise CheckFailed(
            "the int8 file does not pay",
            verdict.loss_reason,
            "export --precision all to get the float file, or raise student.quantize.largest_drop",
        )
    progress.say(
        f"{name}: int8 does not pay: {verdict.loss_reason}; the bundle holds the float file alone"
    )
    return {"fp32": packed["fp32"]}


def token_lengths(
    classifier: Classifier, texts: Sequence[str], pairs: Sequence[str] | None
) -> np.ndarray:
    """(N,) tokens of each text."""
    pieces = []
    for start in range(0, len(texts), 1024):  # all at once would be padded to the longest of all
        stop = start + 1024
        pieces.append(
            classifier.encode(texts[start:stop], None if pairs is None else pairs[start:stop])[
                "attention_mask"
            ].sum(1)
        )
    return np.concatenate(pieces)


def _made_from(source: Path, choice: ExportOptions, task: Task, max_length: int) -> dict[str, Any]:
    """What decides a bundle: weights, longest text, scheme, precisions, the texts it was measured on, and who wrote it."""
    return {
        "weights": hash_files(source, WEIGHTS),
        "max_length": max_length,
        "precisions": list(choice.precisions),
        "scheme": choice.scheme.to_json(),
        "test": task.test.content_hash(),
        "format": FORMAT,
        "kdedge": __version__,
    }


def _is_current(bundle: Path, made_from: Mapping[str, Any], *, student: bool = False) -> bool:
    """Whether a whole bundle of these inputs stands there; one of a student also tells what its files keep."""
    try:
        manifest = Bundle.open(bundle).manifest
    except KdedgeError:
        return False
    ways = manifest.parity.get("ways")
    measured = (
        isinstance(ways, dict)
        and {"files", "int8", "lost", "slow"} <= ways.keys()
        and all("faster" in way for way in dict(ways["files"]).values())
    )
    told = not student or (measured and isinstance(manifest.scores.get("teacher"), float))
    return told and all(manifest.teacher.get(key) == value for key, value in made_from.items())
