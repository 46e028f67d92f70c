"""The options of `kdedge bench` for a file with the user's own texts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kdedge.errors import UsageError

if TYPE_CHECKING:
    from kdedge.benchmarks.examples import Examples
    from kdedge.runtime import Bundle


@dataclass(frozen=True)
class DataArguments:
    """A file with the user's own texts, and its columns."""

    data: Path | None
    text: str
    pair: str
    label: str | None

    def read(self, bundle: Bundle) -> Examples | None:
        """Read the texts for a bundle; None if no file was given."""
        if self.data is None:
            return None
        from kdedge.benchmarks.examples import read_examples

        spec = bundle.manifest.spec
        return read_examples(self.data, spec, text=self.text, pair=self.pair, label=self.label)

    def check(self) -> None:
        """Check that a column of labels belongs to a file."""
        if self.data is None and self.label is not None:
            raise UsageError("--label needs --data", self.label, "name a file with --data")

    def words(self) -> list[str]:
        """Return the options that name the columns."""
        if self.data is None:
            return []
        label = [] if self.label is None else [f"--label={self.label}"]
        return [f"--text={self.text}", f"--pair={self.pair}", *label]
