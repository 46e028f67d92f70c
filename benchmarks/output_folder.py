"""Choose the folder of a report, and protect the reports of other settings.

A report of default settings goes into the default folder. Settings that change what is measured
become part of the folder's name. A report of other settings is never replaced.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdedge.benchmarks.options import DEFAULTS, Options
from kdedge.benchmarks.report_json import finite
from kdedge.benchmarks.scenarios.names import SCENARIOS

from kdedge.errors import UsageError
from kdedge.runtime.layout import MANIFEST
from kdedge.wording import listed

EFFORT = ("seconds", "repeats", "show_texts")
"""Settings that change how long a bench takes or what it shows, but not what it measures."""

MOST_SHOWN = 8
"""Entries of a list that an error shows."""

PAGES = ("report.html", "report.md")
"""Files that every report has next to report.json."""

ABSENT = object()


def report_folder(default: Path, options: Options, data: Path | None = None) -> Path:
    """Return the folder for a report with these settings.

    Args:
        default: The folder of a report with default settings.
        options: How the bench measures.
        data: File with the user's texts, or None.

    Example:
        >>> report_folder(Path("runs/quickstart/bench"), Options(threads=4))
        PosixPath('runs/quickstart/bench-threads-4')
    """
    parts = [default.name]
    if data is not None:
        parts += ["data", data.stem]
    if options.providers != DEFAULTS.providers:
        parts += options.providers
    for name in ("threads", "batch", "target"):
        value = getattr(options, name)
        if value != getattr(DEFAULTS, name):
            parts += [name, f"{value:g}"]
    if not options.teacher:
        parts.append("no-teacher")
    added = [name for name in options.scenarios if name not in DEFAULTS.scenarios]
    if added:
        parts += ["all"] if len(options.scenarios) == len(SCENARIOS) else added
    parts += [f"{rate:g}" for rate in options.rates]
    return default.with_name(re.sub(r"[^\w.-]+", "-", "-".join(parts)))


def check_writable(folder: Path) -> None:
    """Check before a long bench that its report can be written.

    Raises:
        UsageError: If the folder, or the nearest one above it that exists, cannot be written to.
    """
    nearest = folder.absolute()
    while not nearest.exists():
        nearest = nearest.parent
    if not nearest.is_dir():
        reason = f"{nearest} is not a folder"
    elif not os.access(nearest, os.W_OK | os.X_OK):
        reason = f"{nearest} cannot be written to"
    else:
        return
    raise UsageError(
        "the report cannot be written",
        f"{folder}: {reason}",
        "name another folder with --out (in Python: out)",
    )


def check_outside(folder: Path) -> None:
    """Check that a report goes outside of every bundle, which may not contain other files.

    Raises:
        UsageError: If the folder is a bundle, or lies in one.
    """
    resolved = folder.resolve()
    for above in (resolved, *resolved.parents):
        if (above / MANIFEST).is_file():
            raise UsageError(
                "a report cannot be written into a bundle",
                f"{folder}: {above} is a bundle",
                "name another folder for the report",
            )


def check_replaceable(folder: Path, settings: Mapping[str, Any]) -> None:
    """Check that the folder holds no report of other settings, and no page without a report.

    The settings in `EFFORT` are not compared: a longer bench may replace a shorter one.

    Args:
        folder: Folder of the new report.
        settings: `Report.settings` of the new report.

    Raises:
        UsageError: If the folder holds a report of other settings, one that cannot be read, or a
            file of the same name as a page of the report.
    """
    path = folder / "report.json"
    if not path.exists():
        _check_pages(folder)
        return
    hint = "name another folder with --out (in Python: out), or move its report.* away"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["settings"]
        names = sorted({*found, *settings} - {*EFFORT})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            "the folder of the report holds a file that is not a report", str(path), hint
        ) from error
    wanted = finite(dict(settings))
    lines = []
    for name in names:
        before, now = found.get(name, ABSENT), wanted.get(name, ABSENT)
        if before != now:
            lines.append(f"{name}: {_shown(before)} there, {_shown(now)} now")
    if lines:
        raise UsageError(
            "the folder holds a report that was made with other settings",
            "\n".join([str(folder), *lines]),
            hint,
        )


def _check_pages(folder: Path) -> None:
    """Raise UsageError if a folder without a report holds a file that the report would replace."""
    found = [name for name in PAGES if (folder / name).exists()]
    if found:
        raise UsageError(
            "the folder holds files that the report would replace",
            f"{folder}: {', '.join(found)}",
            "name another folder with --out (in Python: out), or move them away",
        )


def _shown(value: Any) -> str:
    if value is ABSENT:
        return "not set"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(entry)}" for key, entry in value.items())
    if isinstance(value, list):
        return listed([_shown(entry) for entry in value], MOST_SHOWN)
    if value is None:
        return "none"
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"
