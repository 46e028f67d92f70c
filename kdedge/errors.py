"""Every error a user can meet is a small letter: what is wrong, what was found, what to do next."""

from __future__ import annotations


class KdedgeError(Exception):
    """Base of all errors raised on purpose.

    what: the rule that was broken, in one sentence.
    found: what was there instead.
    hint: what the user can do now.
    """

    exit_code = 2

    def __init__(self, what: str, found: str = "", hint: str = "") -> None:
        self.what, self.found, self.hint = what, found, hint
        super().__init__(self.format())

    def format(self) -> str:
        lines = [self.what]
        if self.found:
            lines.append(f"  found: {self.found}")
        if self.hint:
            lines.append(f"  next:  {self.hint}")
        return "\n".join(lines)


class CheckFailed(KdedgeError):
    """A measured claim did not hold: parity, retention, agreement."""

    exit_code = 1


class UsageError(KdedgeError):
    """A recipe, an option or an argument is wrong."""

    exit_code = 2


class DataError(KdedgeError):
    """Texts or labels cannot be trusted as they are."""

    exit_code = 3


class MachineError(KdedgeError):
    """This machine lacks something: a package, a provider, memory, disk, a network."""

    exit_code = 4


class IntegrityError(KdedgeError):
    """Files are not the ones that were written."""

    exit_code = 5


class Interrupted(KdedgeError):
    """SIGINT or SIGTERM arrived; work was saved first. Exit code 128 + signal number."""

    def __init__(self, signal_number: int, what: str, hint: str = "") -> None:
        self.exit_code = 128 + signal_number
        super().__init__(what, hint=hint)


def first_line(error: BaseException) -> str:
    """What an exception says, without its essay."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
