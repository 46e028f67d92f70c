"""Stages: folders that are whole or absent, and are reused while their inputs stay the same."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from kdedge.errors import MachineError, UsageError
from kdedge.io.atomic import json_text, remove, replace_dir, write_atomic
from kdedge.run.processes import barrier, on_main_process
from kdedge.run.progress import SILENT, Progress

STAGE_FILE = "stage.json"
WEIGHTS = ("config.json", "model.safetensors", "tokenizer.json")
"""The files that decide a model's logits."""
CACHE_VERSION = 1
"""A part of every stage's inputs: a higher number makes every stage again."""


@dataclass(frozen=True)
class StageContext:
    """How the stages of one command run.

    Attributes:
        force: Make a stage again if its inputs have changed; otherwise that is an error.
        progress: Receives messages and progress.
    """

    force: bool = False
    progress: Progress = SILENT


DEFAULT_STAGES = StageContext()
"""Without force and without messages."""


@dataclass(frozen=True)
class StageRecord:
    """What `stage.json` of a finished stage holds, as JSON values.

    Attributes:
        inputs: Everything that decided the stage's output.
        result: What the stage returned. `read_result` gives it a type.
    """

    inputs: dict[str, Any]
    result: dict[str, Any]


class StageResult(Protocol):
    """The result of a stage as a type."""

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """Read the result from JSON values."""


ResultType = TypeVar("ResultType", bound=StageResult)


def stage(
    folder: Path,
    inputs: dict[str, Any],
    make: Callable[[Path], dict[str, Any]],
    *,
    stages: StageContext = DEFAULT_STAGES,
) -> dict[str, Any]:
    """Make a stage folder, or reuse it if it was made from equal inputs.

    Args:
        folder: The folder of the finished stage.
        inputs: Everything that decides the stage's output, as JSON values.
        make: Fills the folder that it receives and returns the stage's result as JSON values.
            An interrupted folder is passed again if the inputs are equal.
        stages: Whether to replace a stage with other inputs, and where messages go.

    Returns:
        The stage's result.

    Raises:
        UsageError: If the stage has other inputs and `force` is off; lists the differences.
        MachineError: If the disk is full or the folder cannot be written to.
    """
    inputs = json.loads(json.dumps(inputs | {"cache_version": CACHE_VERSION}))
    if folder.exists():
        old = read_stage(folder)
        if old.inputs == inputs:
            stages.progress.say(f"{folder.name}: same inputs, kept")
            return old.result
        if not stages.force:
            raise UsageError(
                f"{folder} was made from other inputs",
                "; ".join(_differences(old.inputs, inputs)),
                "give the run another name, or pass --force to make it again",
            )
    part = folder.with_name(folder.name + ".part")
    try:
        on_main_process(lambda: _begin(part, inputs))
        result = make(part)
        barrier()  # another process may still read from `part`
        on_main_process(lambda: _finish(part, folder, inputs, result))
    except Exception as error:
        _raise_disk_error(part, error)
        raise
    return result


def _raise_disk_error(part: Path, error: Exception) -> None:
    """Raise MachineError if the disk is full or read-only."""
    number = error.errno if isinstance(error, OSError) else None
    # Libraries written in other languages raise their own classes for a full disk.
    if number in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in str(error):
        raise MachineError(
            "the disk is full",
            f"{part}: {error}",
            "free space and run the same command: finished work is reused",
        ) from error
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        raise MachineError(
            "this folder cannot be written to",
            str(error),
            "choose a folder that you may write to, and run the same command",
        ) from error


def _begin(part: Path, inputs: dict[str, Any]) -> None:
    """Prepare the unfinished folder; work from other inputs is removed."""
    plan = part / "inputs.json"
    text = json_text(inputs)
    if not plan.is_file() or plan.read_text(encoding="utf-8", errors="replace") != text:
        remove(part)
    part.mkdir(parents=True, exist_ok=True)
    write_atomic(plan, text)


def _finish(part: Path, folder: Path, inputs: dict[str, Any], result: dict[str, Any]) -> None:
    (part / "inputs.json").unlink(missing_ok=True)
    write_atomic(part / STAGE_FILE, json_text({"inputs": inputs, "result": result}))
    replace_dir(part, folder)


def read_stage(folder: Path) -> StageRecord:
    """Return the inputs and the result of a finished stage.

    Raises UsageError if the folder is not a finished stage.
    """
    try:
        document = json.loads((folder / STAGE_FILE).read_text(encoding="utf-8"))
        return StageRecord(dict(document["inputs"]), dict(document["result"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            "this folder is not a finished stage of a run",
            f"{folder}: {error}",
            "run the command that makes it, or remove the folder",
        ) from error


def read_result(folder: Path, result_type: type[ResultType]) -> ResultType:
    """Return the result of a finished stage as a type.

    Args:
        folder: The folder of the stage.
        result_type: A class with `from_json`, such as `MeasuredResult`.

    Raises:
        UsageError: If the folder is not a finished stage, or its result is of another type.

    Example:
        >>> read_result(Path("runs/quickstart/student"), MeasuredResult).test  # doctest: +SKIP
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
        return [] if old == new else [f"{path}: was {_short(old)}, now {_short(new)}"]
    lines: list[str] = []
    for key in sorted(old.keys() | new.keys()):
        lines += _differences(old.get(key), new.get(key), f"{path}.{key}".lstrip("."))
    return lines


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
