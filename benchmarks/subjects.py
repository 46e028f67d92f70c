"""Subjects: what a bench measures, and the files of a bundle as subjects."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import onnxruntime
from kdedge.benchmarks.options import Options
from kdedge.benchmarks.scenarios.series import subject_key

from kdedge.errors import KdedgeError, MachineError
from kdedge.runtime import Bundle, Classifier
from kdedge.runtime.agreement import AgreementTable
from kdedge.runtime.layout import AGREEMENT
from kdedge.runtime.session import PROVIDERS

ALL_PROVIDERS = "all"

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
        job: What a new process needs to load the subject (see child.py), or None.
        bytes: Size of the files that the subject needs: weights, tokenizer, configuration.
        notes: Conditions that the report states.
        temperature: Divides the logits before the softmax.
        nodes: Execution provider -> nodes of the graph that run on it; {} for others than ONNX.
        agreement: Agreement of this file with its teacher on the validation texts, if its
            bundle has it.
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
    nodes: Mapping[str, int] = field(default_factory=dict)
    agreement: AgreementTable | None = None

    @property
    def key(self) -> str:
        """A name that no other subject of a bench has."""
        return subject_key(self.subject, self.form, self.precision, self.provider)


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
    if ALL_PROVIDERS in options.providers:
        yield from _every_provider(name, bundle, texts, pairs, options.threads)
        return
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
            classifier = Classifier.from_bundle(bundle, precision, provider, options.threads)
            yield _bundle_subject(name, bundle, classifier, logits)


def _every_provider(
    name: str,
    bundle: Bundle,
    texts: Sequence[str] | None,
    pairs: Sequence[str] | None,
    threads: int,
) -> Iterator[Subject]:
    """Yield every file on every provider that ONNX Runtime offers.

    Nodes may run on the CPU, and a note says how many. A provider that cannot run a file yields a
    subject without a runner, whose note says why.
    """
    offered = onnxruntime.get_available_providers()
    for provider in sorted(offered, key=lambda each: each != PROVIDERS["cpu"]):
        for precision in bundle.manifest.precisions:
            try:
                yield _with_fallback(name, bundle, precision, provider, (texts, pairs), threads)
            except KdedgeError as error:
                reason = f"not measured: {error.message} ({error.detail})"
                yield Subject(name, "model", "onnx", precision, provider, notes=(reason,))


def _with_fallback(
    name: str,
    bundle: Bundle,
    precision: str,
    provider: str,
    texts: tuple[Sequence[str] | None, Sequence[str] | None],
    threads: int,
) -> Subject:
    """Build the subject of a file whose nodes may partly run on the CPU.

    Raises:
        MachineError: If the provider runs no node.
        KdedgeError: If it cannot open or run the file.
    """
    classifier = Classifier.from_bundle(bundle, precision, provider, threads, fallback=True)
    if not classifier.nodes_per_provider.get(provider):
        raise MachineError(
            f"{provider} runs no node of this graph", "all of them would run on the CPU"
        )
    first, second = texts
    logits = None if first is None else classifier.logits(first, second)
    # Some providers fail at the first text, not when they open the file.
    trial = ["a text"], ["a text"] if bundle.manifest.spec.pair else None
    classifier.run(classifier.encode(*trial))
    return _bundle_subject(name, bundle, classifier, logits)


def nodes_on_cpu(nodes: Mapping[str, int]) -> str:
    """Say which share of a graph's nodes runs on the CPU; "" if the session is for the CPU.

    Example:
        >>> nodes_on_cpu({"CUDAExecutionProvider": 90, "CPUExecutionProvider": 10})
        '10 of 100 nodes (10.0 %) run on the CPU'
    """
    count, total = nodes.get(PROVIDERS["cpu"], 0), sum(nodes.values())
    if not count or count == total:
        return ""
    return f"{count} of {total} nodes ({100 * count / total:.1f} %) run on the CPU"


def _precisions_for(bundle: Bundle, provider: str) -> list[str]:
    """Select the files that run on a provider.

    int8 kernels exist on the CPU. Elsewhere parts of an int8 graph silently run on the CPU. A CPU
    computes fp16 in fp32, and converts all numbers twice.
    """
    precisions = list(bundle.manifest.precisions)
    if full_name(provider) == PROVIDERS["cpu"]:
        return [name for name in precisions if name != "fp16"] or precisions
    return [name for name in precisions if name != "int8"]


def _bundle_subject(
    name: str,
    bundle: Bundle,
    classifier: Classifier,
    logits: np.ndarray | None,
) -> Subject:
    manifest, precision = bundle.manifest, classifier.precision
    nodes = classifier.nodes_per_provider
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
            "provider": classifier.provider,
            "threads": classifier.threads,
            "fallback": classifier.fallback,
        },
        bytes=manifest.size(precision),
        notes=_notes(manifest.scheme if precision == "int8" else None, nodes),
        nodes=nodes,
        temperature=manifest.temperature,
        agreement=_agreement_table(bundle, precision),
    )


def _agreement_table(bundle: Bundle, precision: str) -> AgreementTable | None:
    """Return the agreement table of a bundle if it was measured with this file."""
    if AGREEMENT not in bundle.contents:
        return None
    table = AgreementTable.from_json(bundle.json(AGREEMENT))
    return table if table.precision == precision else None


def _notes(scheme: Mapping[str, Any] | None, nodes: Mapping[str, int]) -> tuple[str, ...]:
    """Return the conditions of a file; `scheme` is that of an int8 file, else None."""
    notes = []
    if scheme is not None and scheme.get("activations") == "dynamic":
        notes.append(
            "dynamic int8: a prediction can change slightly with the other texts of its batch"
        )
    if nodes_on_cpu(nodes):
        notes.append(nodes_on_cpu(nodes))
    return tuple(notes)
