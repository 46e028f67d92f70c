"""The input of every scenario: the subjects that can run, the texts, and the options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kdedge.benchmarks.examples import Examples
from kdedge.benchmarks.measure import timed_examples
from kdedge.benchmarks.options import Options
from kdedge.benchmarks.subjects import Runner, Subject
from kdedge.benchmarks.work import Batch, take

from kdedge.run.progress import SILENT, Progress
from kdedge.runtime.spec import TaskSpec


@dataclass(frozen=True)
class Workload:
    """The input of a scenario.

    Attributes:
        subjects: Subjects that can run, by key.
        examples: The texts.
        options: How the bench measures.
        progress: Receives messages.
        spec: The task; None if only time is measured.
    """

    subjects: Mapping[str, Subject]
    examples: Examples
    options: Options
    progress: Progress = SILENT
    spec: TaskSpec | None = None

    @property
    def runners(self) -> dict[str, Runner]:
        """The runner of each subject, by key."""
        runners = {}
        for key, subject in self.subjects.items():
            if subject.runner is not None:
                runners[key] = subject.runner
        return runners

    @property
    def jobs(self) -> dict[str, dict[str, Any]]:
        """The job with which a new process loads each subject, by key."""
        jobs = {}
        for key, subject in self.subjects.items():
            if subject.job is not None:
                jobs[key] = subject.job
        return jobs

    @property
    def singles(self) -> list[Batch]:
        """The texts that are timed one by one, in their order."""
        chosen = timed_examples(self.examples, self.options)
        return [take(self.examples, [index]) for index in chosen]

    @property
    def seconds(self) -> float:
        """Seconds that a scenario may take for all subjects."""
        return self.options.seconds
