"""Who is measured: every row of the report as a value, and bundles in ONNX Runtime among them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kdedge.errors import MachineError
from kdedge.runtime import Bundle, Classifier

Encode = Callable[[Sequence[str], Sequence[str] | None], Any]
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


@dataclass(frozen=True)
class Runner:
    """A subject as two functions: texts to model input, model input to logits (B, C)."""

    encode: Encode
    run: Callable[[Any], Any]


@dataclass(frozen=True)
class Contender:
    """One row to be.

    subject: `teacher`, a student's name, or a baseline's. form: torch, onnx or peer.
    logits: (N, C) on the reported texts, or None where only time is measured.
    runner: None where only quality is known. job: what the memory probe loads, or None.
    """

    subject: str
    kind: Literal["model", "baseline"]
    form: Literal["torch", "onnx", "peer"]
    precision: str | None
    provider: str | None
    logits: np.ndarray | None = None
    runner: Runner | None = None
    job: dict[str, Any] | None = None
    bytes: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return " ".join(part for part in (self.subject, self.form, self.precision, self.provider) if part)


def open_bundle(folder: Path, precision: str, provider: str, threads: int | None) -> Classifier:
    """A bundle on the provider asked for. Raises MachineError when the session runs on another."""
    classifier = Classifier.load(folder, precision=precision, provider=provider, threads=threads)
    wanted = PROVIDERS.get(provider, provider)
    if classifier.provider != wanted:
        raise MachineError(
            "the execution provider asked for is not the one that runs",
            f"{provider} was asked for, the session reports {classifier.provider}",
            "install the onnxruntime build that has it, or leave --provider out",
        )
    return classifier


def bundle_contenders(
    subject: str,
    folder: Path,
    texts: Sequence[str] | None,
    pairs: Sequence[str] | None,
    *,
    providers: Sequence[str],
    threads: int,
) -> list[Contender]:
    """A bundle's files on every provider, each with its own answers to `texts` (None: timing alone)."""
    manifest = Bundle.open(folder).manifest
    rows = []
    for provider in providers:
        for precision in manifest.precisions:
            # int8 kernels exist on the CPU; elsewhere such a graph would silently run there in part (R21).
            if provider != "cpu" and precision == "int8":
                continue
            rows.append(_bundle_contender(subject, folder, precision, provider, texts, pairs, threads))
        if not any(row.provider == PROVIDERS.get(provider, provider) for row in rows):
            raise MachineError(f"nothing in this bundle runs on {provider}", f"{subject} has {', '.join(manifest.precisions)}", "bench it on the cpu")
    return rows


def _bundle_contender(
    subject: str, folder: Path, precision: str, provider: str, texts: Sequence[str] | None, pairs: Sequence[str] | None, threads: int
) -> Contender:
    classifier = open_bundle(folder, precision, provider, threads)
    # Answers do not depend on the thread count, so quality may take every core.
    logits = None if texts is None else open_bundle(folder, precision, provider, None).logits(texts, pairs)
    return Contender(
        subject,
        "model",
        "onnx",
        precision,
        classifier.provider,
        logits=logits,
        runner=Runner(classifier.encode, classifier.run),
        job={"form": "onnx", "folder": str(folder.resolve()), "precision": precision, "provider": provider, "threads": threads},
        bytes=(folder / classifier.manifest.precisions[precision]).stat().st_size,
        notes=_scheme_notes(classifier.manifest.scheme) if precision == "int8" else (),
    )


def _scheme_notes(scheme: dict[str, Any] | None) -> tuple[str, ...]:
    dynamic = scheme is not None and "dynamic" in str(scheme).lower()
    return ("dynamic int8: an answer may shift a little with the other texts of its batch",) if dynamic else ()
