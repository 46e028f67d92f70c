"""The bench as a story: gather the subjects, score what they answered, time them together, weigh each alone, report.

`bench_run` measures a run against its teacher and needs torch; `bench_bundle` measures bundles alone and does not.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from kdedge.benchmarks import machine
from kdedge.benchmarks.examples import Examples
from kdedge.benchmarks.measure import DEFAULTS, Options, measure_subjects
from kdedge.benchmarks.report import Report, Row
from kdedge.benchmarks.retention import REFERENCE, Retention, retain, retain_fixed
from kdedge.benchmarks.subjects import Subject, bundle_subjects

from kdedge import __version__
from kdedge.errors import DataError, IntegrityError, UsageError
from kdedge.io.paths import short_name
from kdedge.run.progress import SILENT, Progress
from kdedge.runtime import Bundle
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

    task: the run's, when the caller has it loaded already.
    Raises UsageError for a missing stage or bundle, MachineError for a provider that is not there.
    """
    from kdedge.benchmarks.collect import collect_subjects as contenders_of
    from kdedge.benchmarks.torch_runner import torch_threads
    from kdedge.benchmarks.training_data import learned_from

    from kdedge.data import load_task
    from kdedge.run.stage import read_stage

    recipe = run.recipe
    task = task or load_task(recipe.data, recipe.task, name=recipe.name, seed=recipe.seed)
    with _one_thread_tokenizing(), torch_threads(options.threads):
        contenders = _gathered(
            contenders_of(
                run,
                students,
                task,
                providers=options.providers,
                threads=options.threads,
                teacher=options.teacher,
            ),
            progress,
        )
        yardstick = contenders[0].logits
        assert yardstick is not None
        examples = Examples(
            list(task.test.texts),
            None if task.test.pairs is None else list(task.test.pairs),
            task.test.labels,
        )
        rows = measure_subjects(
            contenders,
            examples,
            task.spec,
            keep=lambda logits: (
                REFERENCE
                if logits is yardstick
                else retain(
                    task.spec,
                    logits,
                    yardstick,
                    task.test.labels,
                    target=options.target,
                    seed=options.seed,
                )
            ),
            options=options,
            progress=progress,
        )
    teacher = {
        "model": _short_name(read_stage(run.teacher)["result"].get("model")),
        "metric": task.spec.metric,
        "value": rows[0].value,
    }
    return _report(
        task.spec,
        examples,
        rows,
        teacher=teacher,
        options=options,
        command=f"kdedge bench runs/{run.folder.name}",
        learned_from=learned_from(run),
    )


def bench_bundle(
    folders: Sequence[Path],
    *,
    options: Options = DEFAULTS,
    examples: Examples | None = None,
    progress: Progress = SILENT,
) -> Report:
    """Measure bundles alone: quality against the teacher score stored with them where `examples` have labels.

    examples: None times the bundles on their golden texts. Several bundles must answer the same task.
    """
    bundles = [Bundle.open(folder) for folder in folders]
    manifests = [bundle.manifest for bundle in bundles]
    spec, scores = manifests[0].spec, manifests[0].scores
    if any(
        (m.spec.kind, m.spec.labels, m.spec.pair) != (spec.kind, spec.labels, spec.pair)
        for m in manifests
    ):
        raise UsageError(
            "these bundles answer different tasks",
            ", ".join(m.name for m in manifests),
            "bench them one by one",
        )
    if any(m.scores.get("teacher") != scores.get("teacher") for m in manifests):
        found = ", ".join(f"{m.name}: {m.scores.get('teacher')}" for m in manifests)
        raise UsageError(
            "these bundles were measured against different teachers", found, "bench them one by one"
        )
    given = examples or golden_examples(bundles[0])
    labelled = given.labels is not None
    subjects = (
        contender
        for bundle in bundles
        for contender in bundle_subjects(
            bundle.manifest.name,
            bundle,
            given.texts if labelled else None,
            given.pairs,
            providers=options.providers,
            threads=options.threads,
        )
    )
    with _one_thread_tokenizing():
        keep = _against_stored(spec, scores, given, options)
        rows = measure_subjects(
            _gathered(subjects, progress),
            given,
            spec,
            keep=keep,
            options=options,
            progress=progress,
        )
    teacher = {
        "model": _short_name(manifests[0].teacher.get("model")),
        "metric": scores.get("metric"),
        "value": scores.get("teacher"),
        "stored": True,
    }
    names = " ".join(folder.name for folder in folders)
    return _report(
        spec,
        given,
        rows,
        teacher=teacher,
        options=options,
        command=f"kdedge bench {names}",
        notes=_stored_notes(scores, given),
    )


def golden_examples(bundle: Bundle) -> Examples:
    """The texts that a bundle carries to check itself."""
    try:
        rows = bundle.json("golden.json")["rows"]
        texts = [str(row["text"]) for row in rows]
        pairs = [str(row["pair"]) for row in rows] if bundle.manifest.spec.pair else None
    except (KeyError, TypeError) as error:
        raise IntegrityError(
            "golden.json of the bundle is not a list of golden answers",
            str(bundle.folder),
            "export again",
        ) from error
    if not texts:
        raise DataError(
            "the bundle carries no golden texts",
            "golden.json has no rows",
            "give texts with --data",
        )
    return Examples(texts, pairs)


def _gathered(contenders: Iterable[Subject], progress: Progress) -> list[Subject]:
    """All contenders, each told as it is ready."""
    ready = []
    progress.start("loading subjects", 0)
    for contender in contenders:
        ready.append(contender)
        progress.advance(len(ready), contender.key)
    progress.finish()
    return ready


def _against_stored(
    spec: TaskSpec, scores: Mapping[str, Any], given: Examples, options: Options
) -> Callable[[np.ndarray], Retention] | None:
    """Retention against the teacher score of the manifest; None where there is none for this metric."""
    teacher, labels = scores.get("teacher"), given.labels
    if teacher is None or labels is None or scores.get("metric") != spec.metric:
        return None
    return lambda logits: retain_fixed(
        spec, logits, labels, float(teacher), target=options.target, seed=options.seed
    )


def _stored_notes(scores: Mapping[str, Any], given: Examples) -> list[str]:
    if given.labels is None or scores.get("teacher") is None:
        return []
    size = scores.get("split_size")
    said = [
        f"the teacher's score was stored with the bundle, measured on {size} texts: only the student is resampled"
    ]
    if size != len(given):
        said.append(
            f"these are {len(given)} texts and not those: kept holds only if both are drawn from the same source"
        )
    return said


def _report(
    spec: TaskSpec,
    given: Examples,
    rows: Sequence[Row],
    *,
    teacher: dict[str, Any],
    options: Options,
    command: str,
    notes: Sequence[str] = (),
    learned_from: dict[str, Any] | None = None,
) -> Report:
    described = machine.describe(options.threads)
    task = {
        "name": spec.name,
        "kind": spec.kind,
        "metric": spec.metric,
        "pair": spec.pair,
        "texts": len(given),
        "measured": given.labels is not None,
    }
    return Report(
        task=task,
        teacher=teacher,
        machine=described,
        rows=tuple(rows),
        target=options.target,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        kdedge=__version__,
        command=f"{command} {_as_flags(options)}".strip(),
        notes=(*notes, *machine.notes(described)),
        settings=asdict(options),
        learned_from=learned_from or {},
    )


def _short_name(model: Any) -> str | None:
    return None if model is None else short_name(str(model))


def _as_flags(options: Options) -> str:
    """The options that differ from their defaults, as they are typed."""
    flags = (
        [f"--provider {name}" for name in options.providers]
        if options.providers != DEFAULTS.providers
        else []
    )
    for name in ("threads", "seconds", "repeats", "batch", "target"):
        if getattr(options, name) != getattr(DEFAULTS, name):
            flags.append(f"--{name} {getattr(options, name)}")
    return " ".join([*flags, *(["--no-teacher"] if not options.teacher else [])])


@contextmanager
def _one_thread_tokenizing() -> Iterator[None]:
    """Batches are tokenized on one thread, as the report says of everything else."""
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = before
