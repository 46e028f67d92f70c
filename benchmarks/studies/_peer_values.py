"""The raw values of benchmarks/studies/peers.py: one file for each share of the test texts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _peer_runs import BLOCK, MeasuredModel

from kdedge.errors import CheckFailed
from kdedge.io.atomic import write_atomic


@dataclass(frozen=True)
class PeerValues:
    """What was measured with one subject.

    Attributes:
        name: Its name in tables.
        program: Its program, with the texts that it learned from.
        scores: One row for each test text. *Shape:* (N, C)
        rounds: Seconds of the texts, one array for each turn.
        model_bytes: Size of its files.
        package_bytes: Size of the packages that its process had loaded.
        fit_seconds: Time to train or convert; None if it is not known.
        problem: Why there are no values; empty if there are.
    """

    name: str
    program: str
    scores: np.ndarray
    rounds: tuple[np.ndarray, ...]
    model_bytes: int
    package_bytes: int
    fit_seconds: float | None
    problem: str


def write_share(path: Path, rows: Sequence[int], subjects: Sequence[MeasuredModel]) -> None:
    """Write the values that the subjects have for the test texts at `rows`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = {"rows": list(rows), "subjects": [raw_values(subject) for subject in subjects]}
    write_atomic(path, json.dumps(values))


def raw_values(subject: MeasuredModel) -> dict[str, Any]:
    return {
        "name": subject.name,
        "program": subject.peer.key,
        "scores": [[round(score, 4) for score in row] for row in subject.scores],
        "microseconds": [round(value, 1) for value in subject.microseconds],
        "model_bytes": folder_bytes(subject.model),
        "package_bytes": subject.package_bytes,
        "fit_seconds": subject.fit_seconds,
        "problem": subject.problem,
    }


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def read_values(folder: Path, texts: int) -> list[PeerValues]:
    """Join all shares in a folder. Raises CheckFailed if a text was not measured just once."""
    shares = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    rows = [row for share in shares for row in share["rows"]]
    if sorted(rows) != list(range(texts)):
        raise CheckFailed("the shares are not all test texts", f"{len(rows)} of {texts} texts")
    order = np.argsort(rows)
    joined = []
    for same in zip(*(share["subjects"] for share in shares), strict=True):
        joined.append(join(same, order))
    return joined


def join(shares: Sequence[dict[str, Any]], order: np.ndarray) -> PeerValues:
    """Join the values of one subject; `order` sorts their texts as in the test split."""
    last = shares[-1]
    problem = next((share["problem"] for share in shares if share["problem"]), "")
    scores = np.zeros((0, 0))
    rounds: list[np.ndarray] = []
    if not problem:
        scores = np.concatenate([share["scores"] for share in shares])[order]
        for share in shares:
            rounds += turns(np.array(share["microseconds"]) / 1e6)
    return PeerValues(
        name=last["name"],
        program=last["program"],
        scores=scores,
        rounds=tuple(rounds),
        model_bytes=last["model_bytes"],
        package_bytes=last["package_bytes"],
        fit_seconds=last["fit_seconds"],
        problem=problem,
    )


def turns(seconds: np.ndarray) -> list[np.ndarray]:
    """Cut times into the turns of `BLOCK` texts in which they were taken."""
    return [seconds[start : start + BLOCK] for start in range(0, len(seconds), BLOCK)]
