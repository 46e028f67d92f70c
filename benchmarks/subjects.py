"""Who is measured: every row of the report as a value, and bundles in ONNX Runtime among them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from kdedge.errors import MachineError
from kdedge.runtime import Bundle, Classifier
from kdedge.runtime.classifier import PROVIDERS

Encode = Callable[[Sequence[str], Sequence[str] | None], Any]


@dataclass(frozen=True)
class Runner:
    """A subject as two functions: texts to model input, model input to logits (B, C)."""

    encode: Encode
    run: Callable[[Any], Any]


@dataclass(frozen=True)
class Subject:
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
        return " ".join(
            part for part in (self.subject, self.form, self.precision, self.provider) if part
        )


def open_bundle(bundle: Bundle, precision: str, provider: str, threads: int | None) -> Classifier:
    """A bundle on the provider asked for. Raises MachineError when its session runs on another."""
    classifier = Classifier.from_bundle(bundle, precision, provider, threads)
    if classifier.provider != full_name(provider):
        raise MachineError(
            "the execution provider asked for is not the one that runs",
            f"{provider} was asked for, the session reports {classifier.provider}",
            "install the onnxruntime build that has it, or leave --provider out",
        )
    return classifier


def full_name(provider: str) -> str:
    """ONNX Runtime's name of a provider."""
    return PROVIDERS.get(provider.lower(), provider)


def bundle_subjects(
    subject: str,
    bundle: Bundle,
    texts: Sequence[str] | None,
    pairs: Sequence[str] | None,
    *,
    providers: Sequence[str],
    threads: int,
) -> Iterator[Subject]:
    """A bundle's files on every provider, each with its own answers to `texts` (None: timing alone)."""
    for provider in providers:
        fitting = [
            precision for precision in bundle.manifest.precisions if _fits(precision, provider)
        ]
        if not fitting:
            raise MachineError(
                f"nothing in this bundle runs on {provider}",
                f"{subject} has only int8, for the CPU",
                "bench it on the cpu",
            )
        for precision in fitting:
            yield _contender(
                subject, bundle, precision, provider, texts=texts, pairs=pairs, threads=threads
            )


def _fits(precision: str, provider: str) -> bool:
    # int8 kernels exist on the CPU; elsewhere such a graph would silently run there in part (R21).
    return precision != "int8" or full_name(provider) == PROVIDERS["cpu"]


def _contender(
    subject: str,
    bundle: Bundle,
    precision: str,
    provider: str,
    *,
    texts: Sequence[str] | None,
    pairs: Sequence[str] | None,
    threads: int,
) -> Subject:
    classifier, manifest = open_bundle(bundle, precision, provider, threads), bundle.manifest
    # Answers do not depend on the thread count, so quality may take every core.
    logits = (
        None
        if texts is None
        else open_bundle(bundle, precision, provider, None).logits(texts, pairs)
    )
    return Subject(
        subject,
        "model",
        "onnx",
        precision,
        classifier.provider,
        logits=logits,
        runner=Runner(classifier.encode, classifier.run),
        job={
            "form": "onnx",
            "folder": str(bundle.folder.resolve()),
            "precision": precision,
            "provider": provider,
            "threads": threads,
        },
        bytes=int(manifest.files[manifest.precisions[precision]]["bytes"]),
        notes=_scheme_notes(manifest.scheme) if precision == "int8" else (),
    )


def _scheme_notes(scheme: Mapping[str, Any] | None) -> tuple[str, ...]:
    dynamic = scheme is not None and scheme.get("activations") == "dynamic"
    return (
        ("dynamic int8: an answer may shift a little with the other texts of its batch",)
        if dynamic
        else ()
    )
