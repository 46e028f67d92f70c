"""Bench a run or bundles: collect the subjects, measure them, and build the report.

`bench_run` measures a run against its teacher and needs torch. `bench_bundle` measures bundles
alone and does not need it.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdedge.benchmarks import machine
from kdedge.benchmarks.equivalence.attach import with_equivalence
from kdedge.benchmarks.equivalence.compute import Evidence
from kdedge.benchmarks.equivalence.tokens import token_counts
from kdedge.benchmarks.examples import Examples, packed_examples
from kdedge.benchmarks.gain import paired_gain
from kdedge.benchmarks.measure import measure_subjects
from kdedge.benchmarks.options import DEFAULTS, Options
from kdedge.benchmarks.reference import (
    retention_against,
    retention_of_bundle,
    unknown_teacher_notes,
    with_curves,
)
from kdedge.benchmarks.report import Report
from kdedge.benchmarks.row import Row
from kdedge.benchmarks.scenarios.run import run_scenarios
from kdedge.benchmarks.sources import bundle_name, check_each_once, subject_names
from kdedge.benchmarks.subjects import Subject, bundle_subjects

from kdedge import __version__
from kdedge.errors import DataError, IntegrityError, UsageError
from kdedge.io.licences import restricted_data
from kdedge.io.paths import short_name
from kdedge.run.progress import SILENT, Progress
from kdedge.runtime import Bundle, Manifest
from kdedge.runtime.spec import TaskSpec

if TYPE_CHECKING:
    from kdedge.data.task import Task
    from kdedge.run.layout import RunDir


def bench_run(
    run: RunDir,
    students: Sequence[str],
    *,
    options: Options = DEFAULTS,
    task: Task | None = None,
    progress: Progress = SILENT,
) -> Report:
    """Measure a run's students, teacher and baselines on its test split.

    Args:
        run: The run.
        students: Names of the students to measure.
        options: How to measure.
        task: The run's task if it is already loaded.
        progress: Receives messages.

    Raises:
        UsageError: If a stage or bundle is missing.
        MachineError: If a provider is missing.
    """
    from kdedge.benchmarks.collect import collect_subjects
    from kdedge.benchmarks.saved import measured_from
    from kdedge.benchmarks.torch_runner import torch_threads
    from kdedge.benchmarks.training_data import learned_from

    from kdedge.data import load_task
    from kdedge.run.stage import read_result
    from kdedge.teacher.result import TeacherResult

    recipe = run.recipe
    task = task or load_task(recipe.data, recipe.task, name=recipe.name, seed=recipe.seed)
    examples = run_examples(task)
    with _single_threaded_tokenizers(), torch_threads(options.threads):
        subjects = _load(collect_subjects(run, students, task, options), progress)
        rows = measure_subjects(
            subjects,
            examples,
            task.spec,
            retention_of=retention_against(
                task.spec, task.test.labels, subjects[0].logits, options
            ),
            options=options,
            progress=progress,
        )
        rows = _compared(rows, subjects, task, options.seed)
        tokens = token_counts(Bundle.open(run.students[students[0]].bundle), examples)
        evidence = Evidence(task.spec, examples, tokens, subjects[0].logits)
        report = _report(task.spec, examples, rows, options)
        report = with_equivalence(report, subjects, evidence, options=options, progress=progress)
        scenarios = run_scenarios(subjects, examples, task.spec, options, progress)
    made = read_result(run.teacher, TeacherResult)
    teacher = {
        "model": _public_name(made.model),
        "fine_tuned": made.fine_tuned,
        "metric": task.spec.metric,
        "value": rows[0].value,
    }
    return replace(
        report,
        scenarios=scenarios,
        teacher=teacher,
        settings=run_settings(run, students, options),
        command=_command([f"runs/{run.folder.name}"], options),
        learned_from=learned_from(run),
        notes=(*data_notes(recipe.data.source), *report.notes),
        measured_from=measured_from(run, students),
    )


def bench_bundle(
    folders: Sequence[Path],
    *,
    options: Options = DEFAULTS,
    examples: Examples | None = None,
    progress: Progress = SILENT,
) -> Report:
    """Measure bundles without their run.

    Subjects have a score if the examples have labels, and a retention if the teacher's logits on
    the same texts are known too: `kdedge export --with-eval` packs both.

    Args:
        folders: Bundles of one task.
        options: How to measure.
        examples: None uses the evaluation texts of the first bundle, or else its golden texts.
        progress: Receives messages.

    Raises:
        UsageError: If the bundles have different tasks or teachers, or one is given twice.
    """
    check_each_once([folder.resolve() for folder in folders])
    bundles = [Bundle.open(folder) for folder in folders]
    manifest = bundles[0].manifest
    examples = examples or packed_examples(bundles[0])
    settings = bundle_settings(bundles, options, examples)
    named = dict(zip(subject_names(bundles), bundles, strict=True))
    _check_comparable({name: bundle.manifest for name, bundle in named.items()})
    golden = examples is None
    examples = examples or golden_examples(bundles[0])
    with _single_threaded_tokenizers():
        subjects = _load(_subjects_of(named, examples, options), progress)
        rows = measure_subjects(
            subjects,
            examples,
            manifest.spec,
            retention_of=retention_of_bundle(manifest.spec, examples, options),
            options=options,
            progress=progress,
        )
        rows = with_curves(rows, subjects, manifest.spec, examples.teacher_logits)
        tokens = token_counts(bundles[0], examples)
        evidence = Evidence(manifest.spec, examples, tokens, examples.teacher_logits, golden=golden)
        report = _report(manifest.spec, examples, rows, options)
        report = with_equivalence(report, subjects, evidence, options=options, progress=progress)
        scenarios = run_scenarios(subjects, examples, manifest.spec, options, progress)
    is_known = examples.labels is not None and examples.teacher_logits is not None
    teacher = {
        "model": _public_name(manifest.teacher.get("model")),
        "metric": manifest.scores.get("metric"),
        "value": manifest.scores.get("teacher") if is_known else None,
    }
    return replace(
        report,
        scenarios=scenarios,
        teacher=teacher,
        settings=settings,
        command=_command([folder.name for folder in folders], options),
        notes=(
            *examples.doubts(manifest.spec),
            *unknown_teacher_notes(manifest.scores, examples),
            *report.notes,
        ),
    )


def _compared(rows: Sequence[Row], subjects: Sequence[Subject], task: Task, seed: int) -> list[Row]:
    """Compare each subject with the teacher, which is the first one, and with its baseline."""
    logits_of = {subject.subject: subject.logits for subject in subjects}
    compared = []
    for row, subject in zip(rows, subjects, strict=True):
        gain = None
        baseline = logits_of.get(f"{subject.subject} baseline")
        if baseline is not None and subject.logits is not None:
            labels = task.test.labels
            gain = paired_gain(task.spec, subject.logits, baseline, labels, seed=seed)
        compared.append(replace(row, gain=gain))
    return with_curves(compared, subjects, task.spec, subjects[0].logits)


def run_settings(run: RunDir, students: Sequence[str], options: Options) -> dict[str, Any]:
    """Return the settings of a report on a run: options, run, and names of its students."""
    chosen: str | list[str] = list(students)
    if set(students) == set(run.students):
        chosen = "all"
    return {**asdict(options), "run": run.folder.name, "students": chosen}


def bundle_settings(
    bundles: Sequence[Bundle], options: Options, examples: Examples | None
) -> dict[str, Any]:
    """Return the settings of a report on bundles: options, bundles, task, texts.

    The names of folders are those of students, which many runs share. So the bundles' own names,
    which begin with their run, and the labels are settings too. A new export keeps them.
    """
    spec = bundles[0].manifest.spec
    return {
        **asdict(options),
        "bundles": [bundle_name(bundle.folder.resolve()) for bundle in bundles],
        "models": [bundle.manifest.name for bundle in bundles],
        "task": spec.name,
        "labels": list(spec.labels),
        "data": examples.source if examples else None,
    }


def golden_examples(bundle: Bundle) -> Examples:
    """Return the golden texts of a bundle, with which it is verified."""
    try:
        rows = bundle.json("golden.json")["rows"]
        texts = [str(row["text"]) for row in rows]
        pairs = [str(row["pair"]) for row in rows] if bundle.manifest.spec.pair else None
    except (KeyError, TypeError) as error:
        raise IntegrityError(
            "golden.json of the bundle has the wrong form", str(bundle.folder), "export again"
        ) from error
    if not texts:
        raise DataError(
            "the bundle has no golden texts",
            "golden.json has no rows",
            "give texts with --data",
        )
    return Examples(texts, pairs)


def _check_comparable(manifests: Mapping[str, Manifest]) -> None:
    """Raise UsageError if bundles, by their names, have different tasks or teachers."""
    first = next(iter(manifests.values()))
    for manifest in manifests.values():
        if not _same_outputs(manifest.spec, first.spec):
            raise UsageError(
                "these bundles have different tasks",
                ", ".join(manifests),
                "bench them one by one",
            )
        if manifest.scores.get("teacher") != first.scores.get("teacher"):
            scores = [f"{name}: {each.scores.get('teacher')}" for name, each in manifests.items()]
            raise UsageError(
                "these bundles were measured against different teachers",
                ", ".join(scores),
                "bench them one by one",
            )


def _same_outputs(first: TaskSpec, second: TaskSpec) -> bool:
    return (first.kind, first.labels, first.pair) == (second.kind, second.labels, second.pair)


def _subjects_of(
    bundles: Mapping[str, Bundle], examples: Examples, options: Options
) -> Iterator[Subject]:
    """Yield the subjects of bundles by name, with logits if the examples have labels."""
    texts = None if examples.labels is None else examples.texts
    for name, bundle in bundles.items():
        yield from bundle_subjects(name, bundle, texts, examples.pairs, options)


def run_examples(task: Task) -> Examples:
    """Return the test split of a task."""
    pairs = None if task.test.pairs is None else list(task.test.pairs)
    return Examples(list(task.test.texts), pairs, task.test.labels)


def _load(subjects: Iterable[Subject], progress: Progress) -> list[Subject]:
    """Load all subjects; report each when it is ready."""
    loaded = []
    progress.start("loading subjects", 0)
    for subject in subjects:
        loaded.append(subject)
        progress.advance(len(loaded), subject.key)
    progress.finish()
    return loaded


def data_notes(source: str | None) -> list[str]:
    """Return a note if the licence of the data set restricts its use."""
    licence = restricted_data(source)
    return [] if licence is None else [f"the data set is for {licence}"]


def _report(spec: TaskSpec, examples: Examples, rows: Sequence[Row], options: Options) -> Report:
    """Build the part of the report that runs and bundles share."""
    described = machine.describe(options.threads)
    task = {
        "name": spec.name,
        "kind": spec.kind,
        "metric": spec.metric,
        "pair": spec.pair,
        "texts": len(examples),
        "measured": examples.labels is not None,
        "digest": examples.digest(),
    }
    return Report(
        task=task,
        teacher={},
        machine=described,
        rows=tuple(rows),
        target=options.target,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        kdedge=__version__,
        command="",
        notes=tuple(machine.notes(described)),
    )


def _public_name(model: Any) -> str | None:
    """Return a model's name without folders of this machine."""
    return None if model is None else short_name(str(model))


def _command(sources: Sequence[str], options: Options) -> str:
    """Write a command that measures the same, for a bench that Python code has started."""
    return shlex.join(["kdedge", "bench", *sources, *options.words()])


@contextmanager
def _single_threaded_tokenizers() -> Iterator[None]:
    """Tokenize batches on one thread."""
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = before
