"""How a bench measures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from kdedge.errors import UsageError

MOST_THREADS = 1024
"""More threads than any machine has cores: they only take memory."""

LARGEST_TARGET = 2


@dataclass(frozen=True)
class Options:
    """How a bench measures.

    Attributes:
        providers: Execution providers of ONNX Runtime. A provider that is missing is an error.
            `all` tries every provider that ONNX Runtime offers, with every file.
        threads: Threads of every subject.
        seconds: Time for all timing together.
        repeats: Number of single texts to time for each subject, instead of `seconds`.
        batch: Texts per batch, for throughput.
        teacher: Whether the teacher runs.
        target: The retention that a student must reach.
        seed: Seeds the choice of texts and the bootstrap.
        show_texts: Whether the report shows the texts on which student and teacher differ most.
        scenarios: See `scenarios.names.SCENARIOS`.
        rates: Texts per second of the scenario `load`; () chooses shares of each capacity.
    """

    providers: tuple[str, ...] = ("cpu",)
    threads: int = 1
    seconds: float = 15.0
    repeats: int | None = None
    batch: int = 32
    teacher: bool = True
    target: float = 0.99
    seed: int = 0
    show_texts: bool = False
    scenarios: tuple[str, ...] = ("single",)
    rates: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Raise UsageError for a value that no bench can use, and for rates without `load`."""
        if not _is_sequence(self.providers) or not self.providers:
            raise _wrong("providers", self.providers, 'a tuple of names, such as ("cpu",)')
        for name in ("threads", "batch", "repeats"):
            value = getattr(self, name)
            is_default = name == "repeats" and value is None
            if not is_default and not _is_whole(value, 1):
                raise _wrong(name, value, "a whole number above 0")
        if self.threads > MOST_THREADS:
            raise _wrong("threads", self.threads, f"at most {MOST_THREADS}")
        if not _is_whole(self.seed, 0):
            raise _wrong("seed", self.seed, "a whole number, 0 or more")
        if not _is_positive(self.seconds):
            raise _wrong("seconds", self.seconds, "a finite number above 0")
        if not _is_positive(self.target) or self.target > LARGEST_TARGET:
            raise _wrong("target", self.target, f"a number above 0 and at most {LARGEST_TARGET}")
        if not _is_sequence(self.rates) or not all(_is_positive(rate) for rate in self.rates):
            raise _wrong("rates", self.rates, "a tuple of finite numbers above 0")
        if self.rates and "load" not in self.scenarios:
            raise UsageError(
                "rates belong to the scenario load",
                f"scenarios: {', '.join(self.scenarios)}",
                "add the scenario load, or leave the rates out",
            )

    def words(self) -> list[str]:
        """Return the options of `kdedge bench` that differ from the defaults."""
        words: list[str] = []
        if self.providers != DEFAULTS.providers:
            for name in self.providers:
                words += ["--provider", name]
        for name in ("threads", "seconds", "repeats", "batch", "target"):
            value = getattr(self, name)
            if value != getattr(DEFAULTS, name):
                words += [f"--{name}", str(value)]
        if not self.teacher:
            words.append("--no-teacher")
        if self.show_texts:
            words.append("--show-texts")
        if self.scenarios != DEFAULTS.scenarios:
            words += ["--scenario", ",".join(self.scenarios)]
        for rate in self.rates:
            words += ["--rate", f"{rate:g}"]
        return words


def _is_sequence(value: Any) -> bool:
    return isinstance(value, tuple | list)


def _is_whole(value: Any, lowest: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= lowest


def _is_positive(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 < value < math.inf


def _wrong(name: str, value: Any, wanted: str) -> UsageError:
    return UsageError(f"{name} must be {wanted}", f"{name}={value!r}", "give another value")


DEFAULTS = Options()
