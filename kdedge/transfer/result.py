"""The result of the stage `transfer/`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class TransferResult:
    """The counts and hashes of a transfer set.

    Attributes:
        texts: Number of texts in the set.
        origins: Origin -> number of texts.
        rejected: Reason -> number of labelled texts that the teacher's filters rejected.
        kept: SHA-256 of the array that says which texts the filters accepted.
        sha256: File name -> SHA-256 of the file.
    """

    texts: int
    origins: dict[str, int]
    rejected: dict[str, int]
    kept: str
    sha256: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> TransferResult:
        return cls(**document)
