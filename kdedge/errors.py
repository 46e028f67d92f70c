"""Errors that a user can meet: each has a message, a detail and a hint."""

from __future__ import annotations

from kdedge.printable import printable_lines


class KdedgeError(Exception):
    """Base class of all errors that kdedge raises on purpose.

    Args:
        message: The rule that was broken, in one sentence.
        detail: The value or place that broke it; may have several lines.
        hint: What the user can do now.
    """

    exit_code = 2

    def __init__(self, message: str, detail: str = "", hint: str = "") -> None:
        self.message = message
        self.detail = detail
        self.hint = hint
        super().__init__(self.format())

    def format(self) -> str:
        """Return the message, followed by an indented line for detail and for hint.

        File names and labels may hold control characters, which are escaped: Python prints an
        error that nobody catches as it is.
        """
        lines = [self.message]
        if self.detail:
            lines.append("  detail: " + self.detail.replace("\n", "\n          "))
        if self.hint:
            lines.append(f"  hint:   {self.hint}")
        return printable_lines("\n".join(lines))


class CheckFailed(KdedgeError):
    """A check on an artifact failed, such as parity, retention or agreement."""

    exit_code = 1


class UsageError(KdedgeError):
    """A recipe, an option or an argument is wrong."""

    exit_code = 2


class DataError(KdedgeError):
    """Texts or labels are malformed or contradict each other."""

    exit_code = 3


class MachineError(KdedgeError):
    """This machine lacks something: a package, a provider, memory, disk space, a network."""

    exit_code = 4


class IntegrityError(KdedgeError):
    """Files differ from those that kdedge wrote."""

    exit_code = 5


class Interrupted(KdedgeError):
    """SIGINT or SIGTERM arrived and the work was saved. Exit code: 128 + signal number."""

    def __init__(self, signal_number: int, message: str, hint: str = "") -> None:
        self.exit_code = 128 + signal_number
        super().__init__(message, hint=hint)


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's text, or the name of its class."""
    lines = str(error).strip().splitlines()
    return lines[0].strip()[:300] if lines else type(error).__name__
