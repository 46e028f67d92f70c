"""Resolve the SOURCEs of `kdedge bench`: students of one run, or bundles without a run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kdedge.errors import UsageError
from kdedge.io.optional import missing_training_packages
from kdedge.printable import printable
from kdedge.run.paths import METADATA_FILE, StudentDir
from kdedge.run.stage import STAGE_FILE

if TYPE_CHECKING:
    from kdedge.run.layout import RunDir
    from kdedge.runtime import Bundle


@dataclass(frozen=True)
class Plan:
    """What to bench: either students of a run, or bundles alone.

    Attributes:
        run: None if bundles are benched alone.
        students: Names of the run's students.
        bundles: Folders of the bundles.
        out: Default folder of the report.
        why: Why bundles of a run are benched alone, or "".
    """

    run: RunDir | None
    students: tuple[str, ...]
    bundles: tuple[Path, ...]
    out: Path
    why: str = ""


def plan(sources: Sequence[Path], *, alone: bool = False) -> Plan:
    """Decide what to bench.

    Args:
        sources: Runs, folders of students, or bundles.
        alone: Bench bundles without their run, as for the user's own texts.

    Raises:
        UsageError: If a source is neither a run, nor a student's folder, nor a bundle, or if two
            of them mean the same bundle.
    """
    bundles: list[Path] = []
    for source in sources:
        bundles += _bundles_of(source)
    bundles = [bundle.resolve() for bundle in bundles]
    check_each_once(bundles)
    missing = missing_training_packages()
    if not alone and not missing:
        in_run = _students_of_one_run(sources)
        if in_run is not None and (in_run[0].teacher / STAGE_FILE).is_file():
            run, students = in_run
            return Plan(run, students, tuple(bundles), _report_folder(run, students))
    why = ""
    if missing and not alone:
        why = f"{', '.join(missing)} not installed: no teacher, no baselines"
    return Plan(None, (), tuple(bundles), Path("bench") / bundle_name(bundles[0]), why)


def _bundles_of(source: Path) -> list[Path]:
    """Return the bundles of a source: a bundle, the folder of a student, or a run."""
    if _is_bundle(source):
        return [source]
    bundle_of_student = StudentDir(source.name, source).bundle
    if _is_bundle(bundle_of_student):
        return [bundle_of_student]
    students = _student_dirs(source)
    bundles = [student.bundle for student in students if _is_bundle(student.bundle)]
    if bundles:
        return bundles
    if students:
        raise UsageError(
            "this run has no bundles yet", str(source), f"run `kdedge export {source}` first"
        )
    raise UsageError(
        "this is neither a bundle nor a run",
        str(source),
        "name a folder with kdedge.json, such as runs/quickstart/bilstm/bundle, or a run folder",
    )


def require_bundle(folder: Path) -> None:
    """Raise UsageError if the bundle of a run's student does not exist."""
    if not folder.exists():
        raise UsageError(
            "a student has not been exported yet",
            f"{folder} is missing",
            "run `kdedge export` on this run first",
        )


def _is_bundle(folder: Path) -> bool:
    return (folder / "kdedge.json").is_file()


def _student_dirs(source: Path) -> list[StudentDir]:
    """List the folders of the students of a run without the packages of the extra `train`."""
    try:
        document = json.loads((source / METADATA_FILE).read_text(encoding="utf-8"))
        students = document["students"].items()
        return [StudentDir(name, source / folder) for name, folder in students]
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return []


def _students_of_one_run(sources: Sequence[Path]) -> tuple[RunDir, tuple[str, ...]] | None:
    """Return the one run of all sources and their students; None for a bundle outside of it."""
    from kdedge.run.layout import find_run

    runs = [find_run(source) for source in sources]
    first = runs[0]
    if first is None or any(run is None or run.folder != first.folder for run in runs):
        return None
    selected: set[str] = set()
    for source in sources:
        students = _students_in(first, source.resolve())
        if not students:
            return None
        selected |= students
    return first, tuple(name for name in first.students if name in selected)


def _students_in(run: RunDir, source: Path) -> set[str]:
    """Return the students that a resolved source means: all for the run's own folder."""
    if source == run.folder:
        return set(run.students)
    students = set()
    for name, student in run.students.items():
        if source in (student.folder.resolve(), student.bundle.resolve()):
            students.add(name)
    return students


def _report_folder(run: RunDir, students: tuple[str, ...]) -> Path:
    """Choose the default folder; a report on one student must not replace the run's report."""
    if len(students) == len(run.students):
        return run.bench
    return run.students[students[0]].bench


def bundle_name(bundle: Path) -> str:
    """Return a bundle's name: its folder, or its student's folder if that is called `bundle`."""
    return _named_folder(bundle).name


def _named_folder(bundle: Path) -> Path:
    return bundle.parent if bundle.name == "bundle" else bundle


def check_each_once(bundles: Sequence[Path]) -> None:
    """Raise UsageError if a bundle's resolved folder is named twice."""
    for number, bundle in enumerate(bundles):
        if bundle in bundles[:number]:
            raise UsageError("a bundle is named twice", str(bundle), "name each bundle once")


def subject_names(bundles: Sequence[Bundle]) -> list[str]:
    """Name each bundle as its manifest does; before equal names stands what differs in their paths.

    Args:
        bundles: Bundles in different folders.

    Example:
        >>> subject_names([Bundle.open("old/bilstm/bundle"), Bundle.open("new/bilstm/bundle")])
        ['old/reviews-bilstm', 'new/reviews-bilstm']
    """
    folders_of: dict[str, list[Path]] = {}
    for bundle in bundles:
        folders_of.setdefault(bundle.manifest.name, []).append(bundle.folder.resolve())
    names = []
    for bundle in bundles:
        name = bundle.manifest.name
        folders = folders_of[name]
        if len(folders) > 1:
            part = differing_parts(folders)[folders.index(bundle.folder.resolve())]
            name = f"{printable(part)}/{name}"
        names.append(name)
    return names


def differing_parts(bundles: Sequence[Path]) -> list[str]:
    """Return the shortest parts of paths that tell bundles apart, without the end that all share.

    Args:
        bundles: Resolved folders, each another one.

    Example:
        >>> differing_parts([Path("/runs/qa/bilstm/bundle"), Path("/runs/qb/bilstm/bundle")])
        ['qa', 'qb']
    """
    paths = [_named_folder(bundle).parts for bundle in bundles]
    ends = paths
    for length in range(1, max(map(len, paths))):
        ends = [path[-length:] for path in paths]
        if len(set(ends)) == len(ends):
            break
    while all(ends) and len({end[-1] for end in ends}) == 1:
        ends = [end[:-1] for end in ends]
    return ["/".join(end) for end in ends]
