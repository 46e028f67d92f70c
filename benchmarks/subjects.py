"""Subjects: what a bench measures, and the files of a bundle as subjects."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from kdedge.benchmarks.options import Options

from kdedge.errors import MachineError
from kdedge.runtime import Bundle, Classifier
from kdedge.runtime.agreement import AgreementTable
from kdedge.runtime.layout import AGREEMENT
from kdedge.runtime.session import PROVIDERS

Encode = Callable[[Sequence[str], Sequence[str] | None], Any]


@dataclass(frozen=True)
class Runner:
    """A subject as two functions: texts to model input, and model input to logits (B, C)."""

    encode: Encode
    run: Callable[[Any], Any]


@dataclass(frozen=True)
class Subject:
    """One row of the report before it is measured.

    Attributes:
        subject: `teacher`, or the name of a student or baseline.
        kind: Whether it is a model under test or a baseline.
        form: `torch`, `onnx`, or `simple` for baselines that are no neural network.
        precision: Such as `fp32` or `int8`.
        provider: Execution provider of ONNX Runtime, or `torch cpu`.
        logits: (N, C) on the test texts; None if only time is measured.
        runner: None if only quality is measured.
        job: What the memory measurement loads, or None.
        bytes: Size of the files that it needs: weights, tokenizer and configuration.
        notes: Conditions that the report states.
        temperature: Divides the logits before the softmax.
        agreement: How often this file agrees with its teacher on the validation texts, if its
            bundle says so.
    """

    subject: str
    kind: Literal["model", "baseline"]
    form: Literal["torch", "onnx", "simple"]
    precision: str | None = None
    provider: str | None = None
    logits: np.ndarray | None = None
    runner: Runner | None = None
    job: dict[str, Any] | None = None
    bytes: int | None = None
    notes: tuple[str, ...] = ()
    temperature: float = 1.0
    agreement: AgreementTable | None = None

    @property
    def key(self) -> str:
        """A name that no other subject of a bench has."""
        parts = (self.subject, self.form, self.precision, self.provider)
        return " ".join(part for part in parts if part)


def full_name(provider: str) -> str:
    """Return ONNX Runtime's name of a provider."""
    return PROVIDERS.get(provider.lower(), provider)


def bundle_subjects(
    name: str,
    bundle: Bundle,
    texts: Sequence[str] | None,
    pairs: Sequence[str] | None,
    options: Options,
) -> Iterator[Subject]:
    """Yield the files of a bundle on every provider.

    Args:
        name: The subject's name in the report.
        bundle: The bundle.
        texts: Texts to classify; None if only time is measured.
        pairs: Second texts of a pair task.
        options: Providers and threads.

    Raises:
        MachineError: If the bundle has no file that a provider can run.
    """
    for provider in options.providers:
        precisions = _precisions_for(bundle, provider)
        if not precisions:
            raise MachineError(
                f"nothing in this bundle runs on {provider}",
                f"{name} has only int8, for the CPU",
                "bench it on the cpu, or export with --precision all",
            )
        for precision in precisions:
            logits = None
            if texts is not None:
                # Logits do not depend on the number of threads, so quality uses every core.
                classifier = Classifier.from_bundle(bundle, precision, provider)
                logits = classifier.logits(texts, pairs)
            yield _bundle_subject(name, bundle, precision, provider, options.threads, logits)


def _precisions_for(bundle: Bundle, provider: str) -> list[str]:
    """Select the files that run on a provider.

    int8 kernels exist on the CPU. Elsewhere parts of an int8 graph silently run on the CPU.
    """
    precisions = list(bundle.manifest.precisions)
    if full_name(provider) != PROVIDERS["cpu"] and "int8" in precisions:
        precisions.remove("int8")
    return precisions


def _bundle_subject(
    name: str,
    bundle: Bundle,
    precision: str,
    provider: str,
    threads: int,
    logits: np.ndarray | None,
) -> Subject:
    manifest = bundle.manifest
    classifier = Classifier.from_bundle(bundle, precision, provider, threads)
    return Subject(
        name,
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
        bytes=manifest.size(precision),
        notes=_scheme_notes(manifest.scheme) if precision == "int8" else (),
        temperature=manifest.temperature,
        agreement=_agreement_table(bundle, precision),
    )


def _agreement_table(bundle: Bundle, precision: str) -> AgreementTable | None:
    """Return the agreement table of a bundle if it was measured with this file."""
    if AGREEMENT not in bundle.contents:
        return None
    table = AgreementTable.from_json(bundle.json(AGREEMENT))
    return table if table.precision == precision else None


def _scheme_notes(scheme: Mapping[str, Any] | None) -> tuple[str, ...]:
    if scheme is None or scheme.get("activations") != "dynamic":
        return ()
    return ("dynamic int8: a prediction can change slightly with the other texts of its batch",)
