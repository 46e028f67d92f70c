"""Watch whether a student still agrees with its teacher as often as was promised."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

from kdedge.runtime.agreement import check_agreement

FALSE_ALARMS = 1e-4
"""One over the mean number of audits before a false alarm, while the promise holds."""

WORSE = 3.0
"""The monitor is fastest if the rate of disagreement grows by this factor."""


@dataclass(frozen=True)
class DriftStatus:
    """The results of the audits so far.

    Attributes:
        audited: Number of audited texts.
        agreed: Number of those on which student and teacher agreed.
        drifted: Whether the student disagrees more often than promised.
        evidence: Current value of the statistic, divided by the value that raises the alarm.
        skipped: Number of texts that were to be audited, but the teacher gave no label in time.
    """

    audited: int
    agreed: int
    drifted: bool
    evidence: float
    skipped: int


class DriftMonitor:
    """Page's CUSUM test on disagreements; may be used by several threads at once.

    The statistic is S <- max(0, S + log likelihood ratio of one audit), for the promised rate of
    disagreement against one `WORSE` times as high. The alarm is S >= log(1 / `FALSE_ALARMS`). If
    the promise holds, a false alarm needs `1 / FALSE_ALARMS` audits or more on average (Page 1954;
    Lorden 1971).

    Args:
        agreement: The promised share of agreement.
    """

    def __init__(self, agreement: float) -> None:
        check_agreement(agreement)
        promised = 1 - agreement
        worse = min(WORSE * promised, (1 + promised) / 2)
        self._step = {
            True: math.log((1 - worse) / (1 - promised)),
            False: math.log(worse / promised),
        }
        self._limit = math.log(1 / FALSE_ALARMS)
        self._sum = 0.0
        self._audited = 0
        self._agreed = 0
        self._skipped = 0
        self._drifted = False
        self._lock = threading.Lock()

    def add(self, agrees: bool) -> None:
        """Add the result of one audit."""
        with self._lock:
            self._audited += 1
            self._agreed += agrees
            self._sum = max(0.0, self._sum + self._step[agrees])
            self._drifted = self._drifted or self._sum >= self._limit

    def skip(self, texts: int) -> None:
        """Count texts without the result of their audits."""
        with self._lock:
            self._skipped += texts

    @property
    def status(self) -> DriftStatus:
        with self._lock:
            evidence = self._sum / self._limit
            return DriftStatus(self._audited, self._agreed, self._drifted, evidence, self._skipped)
