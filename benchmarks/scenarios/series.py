"""Measured values of scenarios; statistics are derived from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

MICRO = 1e6


@dataclass(frozen=True)
class Series:
    """The values of one subject under one condition.

    Attributes:
        scenario: The scenario's name.
        subject: `Subject.key`.
        values: Seconds, or joules per text. *Shape:* (n,)
        at: The condition: batch size, texts per second, threads or tokens; None without one.
        part: Name of the measured part, such as `load`, if a scenario measures several.
        unit: `s`, `J`, or `1` for counts.
    """

    scenario: str
    subject: str
    values: np.ndarray
    at: float | None = None
    part: str = ""
    unit: str = "s"

    @property
    def median(self) -> float:
        return float(np.median(self.values))

    def quantile(self, q: float) -> float:
        return float(np.quantile(self.values, q))

    def to_json(self) -> dict[str, Any]:
        """Return values in microseconds, or in joules, rounded to four decimals."""
        factor = MICRO if self.unit == "s" else 1.0
        return {
            "scenario": self.scenario,
            "subject": self.subject,
            "at": self.at,
            "part": self.part,
            "unit": "us" if self.unit == "s" else self.unit,
            "values": [round(float(value) * factor, 4) for value in self.values],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Series:
        unit = document["unit"]
        values = np.array(document["values"], dtype=float)
        if unit == "us":
            unit = "s"
            values = values / MICRO
        return cls(
            scenario=document["scenario"],
            subject=document["subject"],
            values=values,
            at=document["at"],
            part=document["part"],
            unit=unit,
        )


@dataclass(frozen=True)
class ScenarioResults:
    """What all scenarios of a bench measured.

    Attributes:
        series: Raw values.
        notes: Conditions of the measurement, and what was not measured.
    """

    series: tuple[Series, ...] = ()
    notes: tuple[str, ...] = ()

    def of(self, scenario: str) -> list[Series]:
        """Return the series of one scenario."""
        return [each for each in self.series if each.scenario == scenario]

    def to_json(self) -> dict[str, Any]:
        return {"series": [each.to_json() for each in self.series], "notes": list(self.notes)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> ScenarioResults:
        series = [Series.from_json(entry) for entry in document["series"]]
        return cls(tuple(series), tuple(document["notes"]))


def subject_key(subject: str, form: str, precision: str | None, provider: str | None) -> str:
    """Return a name that no other subject of a bench has."""
    parts = (subject, form, precision, provider)
    return " ".join(part for part in parts if part)


def joined(parts: Iterable[ScenarioResults]) -> ScenarioResults:
    """Put the results of several scenarios together."""
    series: list[Series] = []
    notes: list[str] = []
    for part in parts:
        series += part.series
        notes += part.notes
    return ScenarioResults(tuple(series), tuple(notes))
