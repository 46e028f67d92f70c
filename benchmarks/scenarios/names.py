"""The names of the scenarios, and what each one measures."""

from __future__ import annotations

from collections.abc import Sequence

from kdedge.errors import UsageError
from kdedge.wording import nearest_or_known

SCENARIOS = {
    "single": "single texts and batches, all subjects in turns; every bench measures it",
    "stream": "at least 1,024 single texts, with MLPerf's bounds of p90 and p99",
    "offline": "texts per second for several batch sizes",
    "load": "latency of requests that arrive at random, at stated rates",
    "cold": "a new process: start, load, first answer",
    "threads": "time of a text for several numbers of threads",
    "lengths": "time of a text for several lengths",
    "gate": "single texts in several processes, for a later bench --against this one",
    "machine": "how far each file is from what one core can do, and which operators take the time",
    "energy": "joules per text, if this machine has a readable counter",
}
"""Name -> what it measures."""

ALL = "all"


def scenario_names(given: Sequence[str] | str) -> tuple[str, ...]:
    """Return the chosen scenarios in the order of `SCENARIOS`, with `single`.

    Raises:
        UsageError: If a name is unknown, or no name is given.

    Example:
        >>> scenario_names(["load,cold"])
        ('single', 'load', 'cold')
    """
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise UsageError(
            "scenarios are a list of names", repr(given)[:60], f"such as {list(SCENARIOS)[:2]}"
        )
    text = ",".join(names)
    chosen = {"single"}
    for name in [part.strip().lower() for part in text.split(",")]:
        if name == ALL:
            chosen.update(SCENARIOS)
        elif name in SCENARIOS:
            chosen.add(name)
        else:
            raise UsageError(
                "there is no such scenario",
                name or "an empty name",
                nearest_or_known(name, [*SCENARIOS, ALL]),
            )
    return tuple(name for name in SCENARIOS if name in chosen)
