"""Fit the peers of benchmarks/studies/peers.py, and ask them, each in its own environment."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdedge.errors import CheckFailed

PROGRAMS = Path(__file__).with_name("peers")
ENVIRONMENTS = Path(__file__).resolve().parents[2] / ".venv" / "peers"
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
}
BLOCK = 20
"""Texts that one subject answers before it is the turn of the next one."""

WARM_UP = 3
"""Texts at the start of a block that are not timed: another subject had the caches."""

LABELLED, TRANSFER = "labelled", "transfer"
"""Folders of texts: with their own labels; or the students' texts with the teacher's labels."""


@dataclass(frozen=True)
class Peer:
    """A program in benchmarks/studies/peers/.

    Attributes:
        title: Its name in tables.
        environment: The folder in .venv/peers/ and the list in configs/locks/peers/; empty for
            the environment of kdedge.
        form: What runs the model, as reports call it.
        texts: What it learns from: `LABELLED`, `TRANSFER`, or nothing if it converts the teacher.
    """

    program: str
    title: str
    environment: str
    form: str = ""
    texts: str = ""

    @property
    def key(self) -> str:
        """Name of its files."""
        return f"{self.program}-{TRANSFER}" if self.texts == TRANSFER else self.program

    def command(self) -> list[str]:
        """Return the start of a command line. Raises CheckFailed without an environment."""
        script = str(PROGRAMS / f"{self.program}.py")
        if not self.environment:
            return [sys.executable, script]
        folder = ENVIRONMENTS / self.environment
        if (folder / ".ready").is_file():
            return [str(folder / "bin" / "python"), script]
        why = folder / "why.txt"
        detail = last_line(why) if why.is_file() else "run make peers"
        raise CheckFailed("not installed", detail)


TEACHER = Peer("torch_teacher", "teacher", "torch", "torch")
PEERS = (
    Peer("torch_compile", "torch.compile", "torch", "torch"),
    Peer("optimum_dynamic", "optimum-onnx int8", "optimum", "onnx"),
    Peer("ort_static", "quantize_static int8", "optimum", "onnx"),
    Peer("openvino_nncf", "OpenVINO NNCF int8", "openvino", "openvino"),
    Peer("ctranslate2_int8", "CTranslate2 int8", "ctranslate2", "ctranslate2"),
    Peer("textbrewer_student", "TextBrewer", "textbrewer", "torch", TRANSFER),
    Peer("setfit_head", "SetFit", "setfit", "torch", LABELLED),
    Peer("model2vec_tuned", "model2vec", "model2vec", "numpy", LABELLED),
    Peer("model2vec_tuned", "model2vec, more texts", "model2vec", "numpy", TRANSFER),
    Peer("fasttext_supervised", "fastText", "fasttext", "fasttext", LABELLED),
    Peer("fasttext_supervised", "fastText, more texts", "fasttext", "fasttext", TRANSFER),
    Peer("tfidf_logistic", "TF-IDF", "tfidf", "scikit-learn", LABELLED),
    Peer("tfidf_logistic", "TF-IDF, more texts", "tfidf", "scikit-learn", TRANSFER),
)
BUNDLE = Peer("kdedge_bundle", "kdedge", "", "onnx", TRANSFER)


@dataclass
class MeasuredModel:
    """A model that answers in a process of its own, and what was measured.

    Attributes:
        model: Folder with all files of the model.
        fit_seconds: Time to train or convert; None if it is not known.
        scores: One row for each text. *Shape:* (N, C)
        microseconds: Time of each text, from the text to the scores: N values.
        package_bytes: Size of the packages that the process had loaded.
        problem: Why there are no values; empty if there are.
    """

    name: str
    peer: Peer
    model: Path
    fit_seconds: float | None = None
    scores: list[list[float]] = field(default_factory=list)
    microseconds: list[float] = field(default_factory=list)
    package_bytes: int = 0
    problem: str = ""


class PeerProcess:
    """An open `serve` process."""

    def __init__(self, process: subprocess.Popen[str], log: Path):
        self._process = process
        self._log = log

    def read(self) -> dict[str, Any]:
        """Return the next line. Raises CheckFailed if the process ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise CheckFailed("the program ended", last_line(self._log))
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, text: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"text": text}) + "\n")
        self._process.stdin.flush()
        return self.read()

    def end(self) -> int:
        """Close the input; return the bytes of the packages that were loaded."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return int(self.read()["package_bytes"])


def fit(peer: Peer, task: Path, model: Path) -> None:
    """Write the model of a peer, unless it is there. Raises CheckFailed with the reason."""
    done = model.with_suffix(".json")
    if done.is_file():
        return
    log = model.with_suffix(".log")
    command = [*peer.command(), "fit", str(task.resolve()), str(model.resolve())]
    with log.open("w") as errors:
        finished = subprocess.run(
            command,
            cwd=model.parent,  # some libraries leave files where they run
            env={**os.environ, **ONE_THREAD},
            stdout=subprocess.PIPE,
            stderr=errors,
        )
    if finished.returncode != 0:
        raise CheckFailed(f"fit ended with status {finished.returncode}", last_line(log))
    done.write_bytes(finished.stdout)


@contextmanager
def open_process(subject: MeasuredModel, logs: Path) -> Iterator[PeerProcess]:
    """Start a subject and wait until it is ready. Raises CheckFailed with the reason."""
    command = [*subject.peer.command(), "serve", str(subject.model)]
    log = logs / f"{subject.peer.key}-{subject.model.parent.name}.serve.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            command,
            env={**os.environ, **ONE_THREAD},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        try:
            served = PeerProcess(process, log)
            served.read()
            yield served
        finally:
            process.kill()
            process.wait()


def measure(subjects: Sequence[MeasuredModel], texts: Sequence[str], logs: Path) -> None:
    """Send all texts to all subjects in turns of a block, in a random order of the subjects."""
    generator = random.Random(0)
    with ExitStack() as stack:
        processes: dict[str, PeerProcess] = {}
        for subject in subjects:
            if subject.problem:
                continue
            try:
                processes[subject.name] = stack.enter_context(open_process(subject, logs))
            except CheckFailed as error:
                subject.problem = f"{error.message}: {error.detail}"
        running = [subject for subject in subjects if not subject.problem]
        for start in range(0, len(texts), BLOCK):
            for subject in generator.sample(running, len(running)):
                ask_block(subject, processes[subject.name], texts[start : start + BLOCK])
        for subject in running:
            subject.package_bytes = processes[subject.name].end()


def ask_block(subject: MeasuredModel, process: PeerProcess, texts: Sequence[str]) -> None:
    for text in texts[:WARM_UP]:
        process.ask(text)
    for text in texts:
        answer = process.ask(text)
        subject.scores.append(answer["scores"])
        subject.microseconds.append(answer["microseconds"])


def last_line(log: Path) -> str:
    """Return the last line of a log that is not empty."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    lines = [line for line in lines if line]
    return lines[-1][:200] if lines else "it printed nothing"
