"""How many texts each source produced, and how many of them the filters rejected."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kdedge.run.stage import read_result
from kdedge.runtime.cleaning import changes


@dataclass(frozen=True)
class SourceCounts:
    """What became of the texts of one source: produced = used + unused + rejected.

    Attributes:
        target: Number of texts that the source should contribute.
        attempts: Rows that the source tried; some rows yield no text.
        produced: Number of texts before the filters.
        rejected: Reason -> number of texts.
        unused: Number of accepted texts beyond the target.
        used: Number of texts in the transfer set.
        cleaned: Step of cleaning -> number of produced texts that it changed; {} if the texts are
            not cleaned. Both texts of a pair count.
    """

    target: int
    attempts: int
    produced: int
    rejected: dict[str, int]
    unused: int
    used: int
    cleaned: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> SourceCounts:
        return cls(**document)

    def summary(self, origin: str, seconds: float) -> str:
        """Return one line for the log; `seconds` is the time the source took."""
        line = f"augment: {origin}: {self.produced:,} texts"
        if seconds and self.produced:
            line += f", {self.produced / seconds:,.0f} per second"
        if self.attempts > self.produced:
            line += f" ({self.attempts - self.produced:,} attempts gave no text)"
        reasons = [f"{reason} {count:,}" for reason, count in self.rejected.items()]
        line += f"; used {self.used:,}, target {self.target:,}"
        line += f"; rejected: {', '.join(reasons) or 'none'}"
        if self.cleaned:
            line += f"; cleaning changed: {changes(self.cleaned)}"
        if self.used < self.target:
            line += "; the set is smaller than planned"
        return line


@dataclass(frozen=True)
class AugmentResult:
    """What the stage `augment/` made.

    Attributes:
        texts: Number of new texts.
        sources: Name of a source -> its counts.
        sha256: SHA-256 of the file that holds the texts.
    """

    texts: int
    sources: dict[str, SourceCounts]
    sha256: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> AugmentResult:
        sources = {}
        for origin, counts in document["sources"].items():
            sources[origin] = SourceCounts.from_json(counts)
        return cls(document["texts"], sources, document["sha256"])


def read_source_counts(folder: Path) -> dict[str, SourceCounts]:
    """Return the counts of a finished stage `augment/`, by source.

    {} if the user has deleted the folder.
    """
    return read_result(folder, AugmentResult).sources if folder.exists() else {}
