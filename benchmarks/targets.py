"""What a user's TARGETs mean: the students of one run, or bundles on their own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kdedge.errors import UsageError
from kdedge.io.optional import missing_training_packages

if TYPE_CHECKING:
    from kdedge.run.layout import RunDir


@dataclass(frozen=True)
class Plan:
    """Either a run and names of its students, or bundles alone.

    out: where the report goes unless the user says. why: why bundles of a run are benched alone, or "".
    """

    run: RunDir | None
    students: tuple[str, ...]
    bundles: tuple[Path, ...]
    out: Path
    why: str = ""


def plan(targets: Sequence[Path], *, alone: bool = False) -> Plan:
    """Find out what to bench.

    alone: leave the run a bundle lies in aside, as when texts of the user's own are given.
    Raises UsageError for a target that is neither a run, nor a student's folder in one, nor a bundle.
    """
    bundles = [bundle for target in targets for bundle in _bundles_of(target)]
    missing = missing_training_packages()
    if not alone and not missing:
        found = _one_run(targets)
        if found is not None and (found[0].teacher / "stage.json").is_file():
            run, students = found
            return Plan(run, students, tuple(bundles), _report_home(run, students))
    unique = tuple(dict.fromkeys(bundle.resolve() for bundle in bundles))
    why = (
        f"{', '.join(missing)} not installed: no teacher, no baselines"
        if missing and not alone
        else ""
    )
    return Plan(None, (), unique, Path("bench") / _bundle_name(unique[0]), why)


def _bundles_of(target: Path) -> list[Path]:
    if (target / "kdedge.json").is_file():
        return [target]
    if (target / "bundle" / "kdedge.json").is_file():
        return [target / "bundle"]
    homes = _homes(target)
    found = [home / "bundle" for home in homes if (home / "bundle" / "kdedge.json").is_file()]
    if found:
        return found
    if homes:
        raise UsageError(
            "this run has no bundles yet", str(target), f"run `kdedge export {target}` first"
        )
    raise UsageError(
        "this is neither a bundle nor a run",
        str(target),
        "name a folder with kdedge.json, such as runs/quickstart/bundle, or a run folder",
    )


def _homes(target: Path) -> list[Path]:
    """Folders of a run's students, read without the lab's packages."""
    try:
        students = json.loads((target / "run.json").read_text(encoding="utf-8"))["students"]
        return [target / home for home in students.values()]
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return []


def _one_run(targets: Sequence[Path]) -> tuple[RunDir, tuple[str, ...]] | None:
    """The run all targets belong to and the students they mean; None where one is a bundle from elsewhere."""
    from kdedge.run.layout import find_run

    runs = [find_run(target) for target in targets]
    first = runs[0]
    if first is None or any(run is None or run.folder != first.folder for run in runs):
        return None
    meant = set[str]()
    for target in targets:
        here = target.resolve()
        own = {
            name
            for name, home in first.student_dirs.items()
            if here in (home.resolve(), (home / "bundle").resolve())
        }
        if not own and here != first.folder:
            return None  # a bundle somewhere in the run's folder that is none of its students'
        meant |= set(first.student_dirs) if here == first.folder else own
    return first, tuple(name for name in first.student_dirs if name in meant)


def _report_home(run: RunDir, students: tuple[str, ...]) -> Path:
    """A report on one of several students stands beside that student: it must not replace the one on all."""
    return (
        run.folder if len(students) == len(run.student_dirs) else run.student_dirs[students[0]]
    ) / "bench"


def _bundle_name(bundle: Path) -> str:
    return bundle.parent.name if bundle.name == "bundle" else bundle.name
