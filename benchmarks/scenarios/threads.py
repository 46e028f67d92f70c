"""Thread sweep: the time of one text for several numbers of threads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdedge.benchmarks.scenarios.series import ScenarioResults, Series
from kdedge.benchmarks.scenarios.workload import Workload
from kdedge.benchmarks.subjects import Runner
from kdedge.benchmarks.work import single_work

from kdedge.evaluation.timing import TimingPlan, interleave
from kdedge.run.processes import available_cores
from kdedge.runtime import Classifier

ONE_AFTER_ANOTHER = (
    "threads: one number of threads is measured after the other, so that idle threads do not"
    " disturb; a slow phase of the machine may affect only one of them"
)
NO_TORCH = "threads: only ONNX files; torch sets its threads once for a whole process"


def threads(workload: Workload) -> ScenarioResults:
    """Time single texts of the ONNX files with 1, 2, 4, ... threads, up to the cores."""
    jobs = {key: job for key, job in workload.jobs.items() if job["form"] == "onnx"}
    counts = thread_counts(available_cores())
    items = workload.singles
    series = []
    for count in counts:
        classifiers = {key: _open(job, count) for key, job in jobs.items()}
        works = {}
        for key, classifier in classifiers.items():
            works[key] = single_work(Runner(classifier.encode, classifier.run), items)
        plan = TimingPlan(seconds=workload.seconds / len(counts), seed=workload.options.seed)
        title = f"threads: {count}"
        timed = interleave(works, len(items), plan, title=title, progress=workload.progress)
        for key, parts in timed.items():
            series.append(Series("threads", key, parts[0].values, at=count))
        for classifier in classifiers.values():
            classifier.close()
    notes = [ONE_AFTER_ANOTHER]
    if len(jobs) < len(workload.subjects):
        notes.append(NO_TORCH)
    return ScenarioResults(tuple(series), tuple(notes))


def thread_counts(cores: int) -> list[int]:
    """Return the powers of two up to the number of cores, and that number.

    Example:
        >>> thread_counts(6)
        [1, 2, 4, 6]
    """
    counts = [1]
    while 2 * counts[-1] < cores:
        counts.append(2 * counts[-1])
    return sorted({*counts, cores})


def _open(job: Mapping[str, Any], count: int) -> Classifier:
    return Classifier.load(
        job["folder"],
        precision=job["precision"],
        provider=job["provider"],
        threads=count,
        fallback=job.get("fallback", False),
    )
