"""One experiment on disk: stages that are whole or absent, kept while their inputs stay the same.

    runs/<name>/recipe.toml  run.json  teacher/  generator/  augment/  transfer/  student/  baseline/  bundle/  bench/

With several students, `student/`, `baseline/` and `bundle/` stand in a folder of the student's name.
With several teachers, each stands in `teacher-NAME/` and what they say together in `teacher/`.
`teacher/`, `generator/`, `augment/` and `transfer/` stand in `runs/<share>/` when the recipe says so.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdedge.errors import MachineError, UsageError
from kdedge.io.atomic import json_text, remove, replace_dir, write_atomic
from kdedge.run.processes import barrier, on_main_process
from kdedge.run.progress import SILENT, Progress

STAGE_FILE = "stage.json"


@dataclass(frozen=True)
class StageContext:
    """How the stages of one command run.

    force: make a stage again if its inputs have changed. Without it such a stage is an error.
    progress: where messages and progress go.
    """

    force: bool = False
    progress: Progress = SILENT


DEFAULT_STAGES = StageContext()
"""Keep what is there, say nothing."""


def stage(
    folder: Path,
    inputs: dict[str, Any],
    make: Callable[[Path], dict[str, Any]],
    *,
    stages: StageContext = DEFAULT_STAGES,
) -> dict[str, Any]:
    """Make one stage folder, or keep it when it was made from equal inputs; returns its result.

    `make(part)` fills `part` and returns a JSON-able result; `part` survives an interruption, so that
    `make` can go on where it stopped as long as the inputs are equal.
    Raises UsageError that says what changed when the stage exists from other inputs, unless `force`.
    """
    inputs = json.loads(json.dumps(inputs))
    if folder.exists():
        old = read_stage(folder)
        if old["inputs"] == inputs:
            stages.progress.say(f"{folder.name}: same inputs, kept")
            return dict(old["result"])
        if not stages.force:
            changed = "; ".join(_differences(old["inputs"], inputs))
            raise UsageError(
                f"{folder} was made from other inputs",
                changed,
                "give the run another name, or pass --force to make it again",
            )
    part = folder.with_name(folder.name + ".part")
    try:
        on_main_process(lambda: _begin(part, inputs))
        result = make(part)
        barrier()  # another process may still read what stands in `part`
        on_main_process(lambda: _finish(part, folder, inputs, result))
    except Exception as error:
        if _no_room(error):
            raise MachineError(
                "there is no room left on the disk",
                f"{part}: {error}",
                "make room and run the same command: what is done is kept",
            ) from error
        if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise MachineError(
                "this folder cannot be written to",
                str(error),
                "give the run a place where you may write, and run the same command",
            ) from error
        raise
    return result


def _no_room(error: Exception) -> bool:
    """Libraries that write in another language have errors of their own for it."""
    return (
        isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    ) or "No space left on device" in str(error)


def _begin(part: Path, inputs: dict[str, Any]) -> None:
    plan = part / "inputs.json"
    if not plan.is_file() or plan.read_text(encoding="utf-8", errors="replace") != json_text(
        inputs
    ):
        remove(part)
    part.mkdir(parents=True, exist_ok=True)
    write_atomic(plan, json_text(inputs))


def _finish(part: Path, folder: Path, inputs: dict[str, Any], result: dict[str, Any]) -> None:
    (part / "inputs.json").unlink(missing_ok=True)
    write_atomic(part / STAGE_FILE, json_text({"inputs": inputs, "result": result}))
    replace_dir(part, folder)


def read_stage(folder: Path) -> dict[str, Any]:
    """`{"inputs": ..., "result": ...}` of a finished stage; UsageError where it is not one."""
    try:
        document = json.loads((folder / STAGE_FILE).read_text(encoding="utf-8"))
        return {"inputs": dict(document["inputs"]), "result": dict(document["result"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            "this folder is not a finished stage of a run",
            f"{folder}: {error}",
            "run the command that makes it, or remove the folder",
        ) from error


def _differences(old: Any, new: Any, path: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            line
            for key in sorted(old.keys() | new.keys())
            for line in _differences(old.get(key), new.get(key), f"{path}.{key}".lstrip("."))
        ]
    return [] if old == new else [f"{path}: was {_short(old)}, now {_short(new)}"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


WEIGHTS = ("config.json", "model.safetensors", "tokenizer.json")
"""The files that decide what a model answers."""
