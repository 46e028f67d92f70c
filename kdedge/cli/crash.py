"""What a command does with an exception that kdedge did not raise on purpose."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import traceback

from kdedge import __version__
from kdedge.cli.console import print_message
from kdedge.errors import KdedgeError, MachineError, first_line
from kdedge.io.disk import causes, is_disk_full
from kdedge.io.optional import installed_versions

EXIT_CODE = 70
"""Internal software error (EX_SOFTWARE of sysexits.h)."""

OUT_OF_MEMORY_TEXTS = ("out of memory", "can't allocate memory", "bad allocation")
"""How torch and ONNX Runtime report a failed allocation."""

PACKAGES = ("torch", "transformers", "onnxruntime", "onnx", "tokenizers", "datasets", "numpy")


class UnexpectedError(KdedgeError):
    """A fault of kdedge or of a library."""

    exit_code = EXIT_CODE


def explain(error: Exception) -> KdedgeError:
    """Return the error to print for an exception of any class.

    A full disk, exhausted memory and a file that the system refuses are errors of the machine.
    Everything else is unexpected: its traceback is written to a file, which the hint names.
    """
    for cause in causes(error):
        text = str(cause)
        if is_disk_full(cause):
            return MachineError(
                "the disk is full",
                first_line(cause),
                "free space and run the same command again: finished stages are reused",
            )
        if isinstance(cause, MemoryError) or _mentions(text, OUT_OF_MEMORY_TEXTS):
            return MachineError(
                "the memory is exhausted",
                first_line(cause),
                "choose a smaller batch (fit.batch_size of student or teacher in the recipe, or an "
                "option of the command), a shorter max_length, or a machine with more memory",
            )
    if isinstance(error, OSError) and error.errno is not None:
        detail = first_line(error)
        if error.filename is not None:
            detail = f"{error.filename}: {error.strerror or detail}"
        return MachineError(
            "a file cannot be read or written",
            detail,
            "check that it and the current folder exist and that you may use them, then run the "
            "command again",
        )
    return UnexpectedError(
        f"an unexpected error: {type(error).__name__}",
        first_line(error),
        _report_hint(error),
    )


def _mentions(text: str, phrases: tuple[str, ...]) -> bool:
    lowered = text.lower()
    return any(phrase.lower() in lowered for phrase in phrases)


def _report_hint(error: Exception) -> str:
    """Write a report and say where it is; without a place for it, print the traceback."""
    report = crash_report(error)
    try:
        descriptor, path = tempfile.mkstemp(prefix="kdedge-error-", suffix=".txt")
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(report)
    except OSError:
        print_message(report)
        return "please report it with the text above; remove private texts first"
    return f"please report it with the file {path}; remove private texts from it first"


def crash_report(error: Exception) -> str:
    """Return command, versions and traceback."""
    lines = [
        f"command: {' '.join(sys.argv)}",
        f"kdedge: {__version__}",
        f"python: {platform.python_version()} on {platform.platform()}",
    ]
    for package, installed in installed_versions(PACKAGES).items():
        lines.append(f"{package}: {installed}")
    return "\n".join(lines) + "\n\n" + "".join(traceback.format_exception(error))
