"""The protocol between benchmarks/studies/peers.py and one program for each peer.

    PROGRAM fit TASK MODEL    reads the task's files, writes the folder MODEL, prints the seconds
    PROGRAM serve MODEL       prints a line when it is ready, then answers one text a line

A program runs in an environment of its own, so this file needs the standard library alone. Every
line is a JSON value. `serve` measures each answer itself, from the text to the scores.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

Answer = Callable[[str], Sequence[float]]
"""Returns one score for each label, in the order of the task; the largest one decides."""


@dataclass(frozen=True)
class PeerTask:
    """The files of a task that a peer may read. Test texts are not among them.

    Attributes:
        folder: Holds train.jsonl and validation.jsonl, with a text and a label number a line.
        settings: The content of settings.json; `Settings` in _peer_task.py explains it.
    """

    folder: Path
    settings: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> PeerTask:
        return cls(folder, json.loads((folder / "settings.json").read_text(encoding="utf-8")))

    def split(self, name: str) -> tuple[list[str], list[int]]:
        """Return the texts and the label numbers of `train` or `validation`."""
        lines = (self.folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        return [row["text"] for row in rows], [row["label"] for row in rows]

    def calibration(self) -> list[str]:
        """Return the training texts that set the ranges of activations, spread over the file."""
        texts, _ = self.split("train")
        count = min(self.settings["calibration_texts"], len(texts))
        return texts[:: len(texts) // count][:count]


def accuracy(answer: Answer, texts: Sequence[str], labels: Sequence[int]) -> float:
    """Return the share of the texts whose largest score is that of the label."""
    right = 0
    for text, label in zip(texts, labels, strict=True):
        scores = list(answer(text))
        right += scores.index(max(scores)) == label
    return right / len(texts)


def run(fit: Callable[[PeerTask, Path], None], load: Callable[[Path], Answer]) -> None:
    """Be the program of a peer."""
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    fit_parser = commands.add_parser("fit")
    fit_parser.add_argument("task", type=Path)
    fit_parser.add_argument("model", type=Path)
    serve_parser = commands.add_parser("serve")
    serve_parser.add_argument("model", type=Path)
    arguments = parser.parse_args()
    output = take_output()
    if arguments.command == "fit":
        arguments.model.mkdir(parents=True, exist_ok=True)
        start = time.perf_counter()
        fit(PeerTask.read(arguments.task), arguments.model)
        say(output, {"seconds": time.perf_counter() - start})
    else:
        serve(load(arguments.model), output)


def take_output() -> TextIO:
    """Return the standard output, and send what libraries print there to the log instead."""
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return output


def say(output: TextIO, value: dict[str, Any]) -> None:
    output.write(json.dumps(value) + "\n")
    output.flush()


def serve(answer: Answer, output: TextIO) -> None:
    """Answer texts until the input ends; then say how large the loaded packages are."""
    say(output, {"ready": True})
    for line in sys.stdin:
        text = json.loads(line)["text"]
        start = time.perf_counter_ns()
        scores = answer(text)
        nanoseconds = time.perf_counter_ns() - start
        say(output, {"scores": [float(x) for x in scores], "microseconds": nanoseconds / 1000})
    say(output, {"package_bytes": package_bytes(loaded_files())})


def loaded_files() -> set[Path]:
    """Return the files of all imported modules and loaded libraries."""
    found = set()
    for module in list(sys.modules.values()):
        name = getattr(module, "__file__", None)
        if name:
            found.add(Path(name).resolve())  # as in the maps below
    for line in Path("/proc/self/maps").read_text().splitlines():
        name = line.partition("/")[2]
        if name:
            found.add(Path("/" + name))
    return found


def package_bytes(files: set[Path]) -> int:
    """Return the size of every entry of site-packages from which a file is loaded."""
    entries = set()
    for file in files:
        parts = file.parts
        if "site-packages" in parts:
            entries.add(Path(*parts[: parts.index("site-packages") + 2]))
    return sum(size(entry) for entry in entries)


def size(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder but Python's caches."""
    if path.is_file():
        return path.stat().st_size
    total = 0
    for file in path.rglob("*"):
        if file.is_file() and file.suffix != ".pyc":
            total += file.stat().st_size
    return total
