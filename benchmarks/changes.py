"""How the subjects of a bench changed since an earlier one."""

from __future__ import annotations

from dataclasses import dataclass

from kdedge.errors import CheckFailed


@dataclass(frozen=True)
class Change:
    """How one subject changed.

    Attributes:
        subject: `Subject.key`.
        ratio: New time divided by the old one, corrected for the speed of the machine.
        low, high: Its interval.
        verdict: `faster`, `slower`, `no difference` or `inconclusive`.
        machine: New time of the scenario's yardstick divided by the old one.
        old_score, new_score: None if they were not measured.
        score_verdict: `better`, `worse`, `no difference`, or "" without scores.
    """

    subject: str
    ratio: float
    low: float
    high: float
    verdict: str
    machine: float
    old_score: float | None = None
    new_score: float | None = None
    score_verdict: str = ""

    @property
    def is_regression(self) -> bool:
        return self.verdict == "slower" or self.score_verdict == "worse"

    def __str__(self) -> str:
        text = (
            f"{self.subject}: {self.verdict}, {self.ratio:.3f} times the time"
            f" [{self.low:.3f}-{self.high:.3f}]"
        )
        if self.score_verdict:
            text += f"; score {self.score_verdict}, {self.old_score:.4f} to {self.new_score:.4f}"
        return text


@dataclass(frozen=True)
class Comparison:
    """A bench compared with an earlier one.

    Attributes:
        created: The time of the earlier one.
        changes: The subjects of both.
        only_old, only_new: Subjects that only one of them has.
        not_timed: Subjects of both whose process ended early now.
    """

    created: str
    changes: tuple[Change, ...]
    only_old: tuple[str, ...] = ()
    only_new: tuple[str, ...] = ()
    not_timed: tuple[str, ...] = ()

    def raise_if_regressed(self) -> None:
        """Raise CheckFailed if a subject is slower, scores worse or does not run any more."""
        if self.not_timed:
            raise CheckFailed(
                "a file of the earlier bench does not run any more",
                ", ".join(self.not_timed),
                "run `kdedge verify` on the bundle",
            )
        worse = [str(change) for change in self.changes if change.is_regression]
        if worse:
            raise CheckFailed(
                "this bench is worse than the earlier one",
                "\n".join(worse),
                "find the change that caused it, or accept it with a new report as reference",
            )
