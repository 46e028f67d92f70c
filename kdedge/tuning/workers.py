"""Share the trials of a study among several processes, which stop together."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from pathlib import Path

from kdedge.distillation.pipeline import prepare_context
from kdedge.errors import CheckFailed, Interrupted, KdedgeError, first_line
from kdedge.run.layout import RunDir
from kdedge.run.progress import Progress
from kdedge.run.signals import Terminated, raise_terminated
from kdedge.run.threads import prepare_process
from kdedge.tuning.study import TuningStudy, run_trials

STOPPED = (-signal.SIGTERM, 128 + signal.SIGTERM, 128 + signal.SIGINT)
"""Exit codes of a worker that a signal ended: before it could handle the signal, and after."""


@contextmanager
def named_stop() -> Iterator[None]:
    """Say what becomes of the trials if a signal stops them: unlike a stage, none continues.

    Raises:
        Interrupted: If SIGINT or SIGTERM arrives within the block.
    """
    try:
        yield
    except (KeyboardInterrupt, Terminated, Interrupted) as stopped:
        number = _signal_number(stopped)
        raise Interrupted(
            number,
            f"stopped by signal {number}; finished trials are kept",
            "run the same command to continue; a new trial replaces each stopped one, from its "
            "first step",
        ) from stopped


def _signal_number(stopped: KeyboardInterrupt | Terminated | Interrupted) -> int:
    if isinstance(stopped, Interrupted):
        return stopped.exit_code - 128
    return int(signal.SIGTERM if isinstance(stopped, Terminated) else signal.SIGINT)


def run_workers(
    tuning: TuningStudy, runs: Path, workers: int, worker_progress: Callable[[], Progress]
) -> None:
    """Run the trials of a study in several processes; none of them is left at the end.

    Raises:
        CheckFailed: If every worker failed.
    """
    context = multiprocessing.get_context("spawn")
    processes = []
    for number in range(workers):
        arguments = (replace(tuning, worker=number), runs, worker_progress)
        processes.append(context.Process(target=_run_worker, args=arguments))
    try:
        with _without_sigint():
            for process in processes:
                process.start()
        for process in processes:
            process.join()
    except BaseException:
        _stop([process for process in processes if process.pid is not None])
        raise
    exit_codes = [process.exitcode for process in processes]
    if all(code in STOPPED for code in exit_codes):
        raise Terminated
    if all(exit_codes):
        raise CheckFailed(
            "every worker failed", f"exit codes {exit_codes}", "run with one worker to see why"
        )


@contextmanager
def _without_sigint() -> Iterator[None]:
    """Hold SIGINT back, also in all processes that are started within the block.

    Ctrl-C reaches every process of a terminal. Only this process handles it.
    """
    resource_tracker.ensure_running()  # otherwise `start` does it, and lets SIGINT through again
    earlier = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, earlier)


def _stop(processes: Sequence[BaseProcess]) -> None:
    """End processes, and wait until they have ended; a signal in the meantime kills them."""
    for process in processes:
        process.terminate()
    try:
        for process in processes:
            process.join()
    finally:
        for process in processes:
            process.kill()
            process.join()


def _end_with_parent() -> None:
    """Stop this worker when its parent has ended: Ctrl-C does not reach a worker."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _run_worker(tuning: TuningStudy, runs: Path, worker_progress: Callable[[], Progress]) -> None:
    """Run trials in a process of its own; report an error as one line and an exit code."""
    signal.signal(signal.SIGTERM, raise_terminated)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    progress = worker_progress()
    try:
        with named_stop():
            prepare_process(tuning.recipe.threads or 1)
            context = prepare_context(tuning.recipe, RunDir.create(tuning.recipe, runs))
            run_trials(tuning, context, progress)
    except KdedgeError as error:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would print a traceback
        progress.say(f"worker {tuning.worker}: {first_line(error)}")
        sys.exit(error.exit_code)
