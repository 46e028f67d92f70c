"""Stages: folders that are complete or absent, and are reused if their inputs are equal."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from kdedge.errors import Interrupted, UsageError
from kdedge.io.atomic import json_text, remove, replace_dir, write_atomic
from kdedge.io.disk import named_disk_errors
from kdedge.run.processes import barrier, on_main_process
from kdedge.run.progress import SILENT, Progress
from kdedge.run.signals import Terminated
from kdedge.run.stage_files import FileRecord, changed_error, changed_file, record_files
from kdedge.wording import shortened

STAGE_FILE = "stage.json"
INPUTS_FILE = "inputs.json"
"""The inputs of an unfinished stage."""
CACHE_VERSION = 3
"""A part of every stage's inputs: a higher number makes every stage again."""


@dataclass(frozen=True)
class StageContext:
    """How the stages of one command run.

    Attributes:
        force: Make a stage again if its inputs or files have changed; otherwise that is an error.
        progress: Receives messages and progress.
        dry_run: Raise StageNeeded instead of making a stage.
        order: The folders of all stages, if they are known: messages then number the stages.
        run: The folder of the run, if it is known: stages elsewhere are shared with other runs.
    """

    force: bool = False
    progress: Progress = SILENT
    dry_run: bool = False
    order: tuple[Path, ...] = ()
    run: Path | None = None

    def other_inputs_hint(self, folder: Path) -> str:
        """Say what to do if a stage was made from other inputs."""
        if self.run is None or folder.is_relative_to(self.run):
            return (
                "give the run another name, or make it again with --force (of kdedge distill; in "
                "Python: force=True)"
            )
        return (
            f"other runs share this stage in {folder.parent}: for a stage of your own, give share "
            "(of a general student: the student or general.share) another name; --force makes it "
            "again for all of them"
        )

    def title(self, folder: Path) -> str:
        """Return `stage 3 of 8, bilstm/student`, or the folder's name if it is not in `order`."""
        if folder not in self.order:
            return folder.name
        number = self.order.index(folder) + 1
        return f"stage {number} of {len(self.order)}, {folder.parent.name}/{folder.name}"


class StageNeeded(Exception):
    """Raised if a dry run reaches a stage that is missing, or that has other inputs.

    Attributes:
        folder: The folder of the stage.
        differences: Descriptions of the inputs that differ; [] if the stage does not exist.
        discards: Whether unfinished work would be removed, because it has other inputs.
    """

    def __init__(self, folder: Path, differences: list[str], *, discards: bool) -> None:
        self.folder = folder
        self.differences = differences
        self.discards = discards
        super().__init__(str(folder))


DEFAULT_STAGES = StageContext()
"""Without force and without messages."""


@dataclass(frozen=True)
class StageRecord:
    """The content of `stage.json` of a finished stage, as JSON values.

    Attributes:
        inputs: Everything that decided the stage's output.
        result: What the stage returned; `read_result` converts it to a class.
        files: Path -> record of each file that the stage wrote.
    """

    inputs: dict[str, Any]
    result: dict[str, Any]
    files: dict[str, FileRecord] = field(default_factory=dict)


class StageResult(Protocol):
    """The interface of a typed stage result."""

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """Create the result from JSON values."""


ResultType = TypeVar("ResultType", bound=StageResult)


def stage(
    folder: Path,
    inputs: dict[str, Any],
    make: Callable[[Path], dict[str, Any]],
    *,
    stages: StageContext = DEFAULT_STAGES,
    temporary: str = "",
) -> dict[str, Any]:
    """Make a stage folder, or reuse it if it was made from equal inputs and is intact.

    Args:
        folder: The folder of the finished stage.
        inputs: Everything that decides the stage's output, as JSON values.
        make: Fills the folder that it receives and returns the stage's result as JSON values.
            An interrupted folder is passed again if the inputs are equal.
        stages: Whether to replace a stage with other inputs, and where messages go.
        temporary: Pattern of the files that the caller removes once the stage is finished.

    Returns:
        The stage's result.

    Raises:
        UsageError: If the stage has other inputs and `force` is off; lists the differences.
        IntegrityError: If a file of the stage has changed and `force` is off; names it.
        Interrupted: If SIGINT or SIGTERM arrives while the stage is made.
        MachineError: If the disk is full or the folder cannot be written to.
        StageNeeded: If the stage has to be made, and `stages` is a dry run.
    """
    differences: list[str] = []
    inputs = json.loads(json.dumps(inputs | {"cache_version": CACHE_VERSION}))
    if folder.exists():
        old = read_stage(folder)
        differences = _reasons_to_make_again(folder, old, inputs, stages)
        if not differences:
            stages.progress.say(f"{stages.title(folder)}: same inputs, kept")
            return old.result
    part = folder.with_name(folder.name + ".part")
    discards = part.exists() and not _is_begun(part, inputs)
    if stages.dry_run:
        raise StageNeeded(folder, differences, discards=discards)
    if folder in stages.order:
        stages.progress.say(stages.title(folder))
    if discards:
        stages.progress.say(
            f"{stages.title(folder)}: unfinished work is removed, because it has other inputs"
        )
    with named_disk_errors(part):
        on_main_process(lambda: _begin(part, inputs))
        result = _make(make, part, stages.title(folder))
        barrier()  # another process may still read from `part`
        on_main_process(lambda: _finish(part, folder, StageRecord(inputs, result), temporary))
    _say_scores(folder, result, stages.progress)
    return result


def _make(make: Callable[[Path], dict[str, Any]], part: Path, title: str) -> dict[str, Any]:
    """Fill a folder; name the stage if a signal stops it."""
    try:
        return make(part)
    except (KeyboardInterrupt, Terminated) as stopped:
        number = signal.SIGTERM if isinstance(stopped, Terminated) else signal.SIGINT
        raise Interrupted(
            number,
            f"{title}: stopped by signal {int(number)}",
            "run the same command to continue; finished stages and saved work are kept",
        ) from stopped


def _reasons_to_make_again(
    folder: Path, old: StageRecord, inputs: dict[str, Any], stages: StageContext
) -> list[str]:
    """List why a finished stage cannot be reused; empty if it can.

    Raises UsageError or IntegrityError if it may not be made again.
    """
    may_make = stages.force or stages.dry_run
    differences = _differences(old.inputs, inputs)
    if differences and not may_make:
        raise UsageError(
            f"{folder} was made from other inputs",
            "; ".join(differences),
            stages.other_inputs_hint(folder),
        )
    if differences:
        return differences
    change = changed_file(folder, old.files, trust_times=True)
    if change is None:
        return []
    if not may_make:
        raise changed_error(change, folder)
    stages.progress.say(f"{stages.title(folder)}: {change}; made again")
    return [change]


def verify_stage(folder: Path) -> None:
    """Read every file of a finished stage, and compare it with what the stage wrote.

    Raises:
        IntegrityError: If a file is missing or has another content; names it.
        UsageError: If the folder is not a finished stage.
    """
    change = changed_file(folder, read_stage(folder).files, trust_times=False)
    if change:
        raise changed_error(change, folder)


def _say_scores(folder: Path, result: dict[str, Any], progress: Progress) -> None:
    """Report the scores of a stage that measured a model."""
    if not {"metric", "validation", "test"} <= result.keys():
        return
    progress.say(
        f"{folder.parent.name}/{folder.name}: {result['metric']} {result['test']:.4f} on test, "
        f"{result['validation']:.4f} on validation"
    )


def _begin(part: Path, inputs: dict[str, Any]) -> None:
    """Prepare the unfinished folder; remove it first if it was begun with other inputs."""
    if not _is_begun(part, inputs):
        remove(part)
    part.mkdir(parents=True, exist_ok=True)
    write_atomic(part / INPUTS_FILE, json_text(inputs))


def _is_begun(part: Path, inputs: dict[str, Any]) -> bool:
    """Return whether an unfinished folder was begun with these inputs."""
    file = part / INPUTS_FILE
    if not file.is_file():
        return False
    return file.read_text(encoding="utf-8", errors="replace") == json_text(inputs)


def _finish(part: Path, folder: Path, record: StageRecord, temporary: str) -> None:
    (part / STAGE_FILE).unlink(missing_ok=True)
    files = record_files(part, (INPUTS_FILE, temporary))
    document = {"inputs": record.inputs, "result": record.result, "files": files}
    write_atomic(part / STAGE_FILE, json_text(document))
    replace_dir(part, folder)
    # The inputs are removed last: an unfinished folder without them would be removed.
    (folder / INPUTS_FILE).unlink(missing_ok=True)


def read_stage(folder: Path) -> StageRecord:
    """Return the inputs and the result of a finished stage.

    Raises UsageError if the folder is not a finished stage.
    """
    try:
        document = json.loads((folder / STAGE_FILE).read_text(encoding="utf-8"))
        files = {name: FileRecord(**values) for name, values in document["files"].items()}
        return StageRecord(dict(document["inputs"]), dict(document["result"]), files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            "this folder is not a finished stage of a run",
            f"{folder}: {error}",
            "run the command that makes it, or remove the folder",
        ) from error


def read_result(folder: Path, result_type: type[ResultType]) -> ResultType:
    """Return the result of a finished stage as an instance of `result_type`.

    Args:
        folder: The folder of the stage.
        result_type: A class with `from_json`, such as `MeasuredResult`.

    Raises:
        UsageError: If the folder is not a finished stage, or its result is of another type.

    Example:
        >>> student = Path("runs/quickstart/bilstm/student")
        >>> read_result(student, MeasuredResult).test  # doctest: +SKIP
        0.91
    """
    record = read_stage(folder)
    try:
        return result_type.from_json(record.result)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(
            "this stage has another result than expected",
            f"{folder / STAGE_FILE}: no valid {result_type.__name__} ({error!r})",
            "remove the folder and run the command that makes it",
        ) from error


def _differences(old: Any, new: Any, path: str = "") -> list[str]:
    """List `key: was ..., now ...` for every value that differs."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        if old == new:
            return []
        return [f"{path}: was {_short(old)}, now {_short(new)}"]
    lines: list[str] = []
    for key in sorted(old.keys() | new.keys()):
        lines += _differences(old.get(key), new.get(key), f"{path}.{key}".lstrip("."))
    return lines


def _short(value: Any) -> str:
    return shortened(json.dumps(value), 60)
