"""A classifier that runs a bundle on ONNX Runtime, without torch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import onnxruntime

from kdedge.errors import CheckFailed, IntegrityError, MachineError, UsageError
from kdedge.runtime.bundle import Bundle, Manifest
from kdedge.runtime.bundle_source import open_bundle
from kdedge.runtime.onnx_check import check_graph
from kdedge.runtime.spec import TaskSpec
from kdedge.runtime.text_arguments import read_arguments, read_list
from kdedge.runtime.text_encoder import TextEncoder, TokenRow, length_batches

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
}
"""Short name -> ONNX Runtime's name of an execution provider."""

CPU_ORDER = ("int8", "portable", "fp32")
OTHER_ORDER = ("fp32", "portable", "int8")
"""What `auto` prefers. The operators of the int8 file have fast kernels on CPUs only."""

SHAPE_OPERATORS = frozenset(
    "Cast Concat ConstantOfShape Equal Expand Gather Range Reshape Shape Slice Squeeze Unsqueeze "
    "Where".split()
)
"""Operators that compute shapes and masks; a GPU provider may leave them to the CPU."""

SLOW_FUSIONS = ["SkipLayerNormFusion"]
"""Graph optimizations of ONNX Runtime that make small encoders slower on CPUs."""


@dataclass(frozen=True)
class Prediction:
    """The prediction for one text.

    Attributes:
        label: The best label; for multilabel all labels above the task's threshold; for
            regression "score".
        score: Probability of that label (multilabel: the highest one), or the predicted number.
        scores: Label -> probability, or {"score": number} for regression.
        truncated: Whether the text was longer than the model reads.
    """

    label: str | tuple[str, ...]
    score: float
    scores: dict[str, float]
    truncated: bool = False

    def to_json(self) -> dict[str, Any]:
        """Convert to a JSON object; `truncated` is present only if it is true."""
        label = list(self.label) if isinstance(self.label, tuple) else self.label
        document = {"label": label, "score": self.score, "scores": self.scores}
        if self.truncated:
            document["truncated"] = True
        return document


class Classifier:
    """Predicts labels of texts; one instance may serve many threads at once.

    Example:
        ```python
        classifier = kdedge.Classifier.load("runs/quickstart/bilstm/bundle")
        classifier.predict("Shares fell after the bank's warning").label
        [answer.label for answer in classifier.predict(["one text", "another text"])]
        classifier.predict_proba(["one text", "another text"])  # (2, C) float32
        ```
    """

    def __init__(
        self,
        encoder: TextEncoder,
        session: onnxruntime.InferenceSession,
        precision: str,
        provider: str,
        threads: int,
    ) -> None:
        self.manifest = encoder.manifest
        self.precision = precision
        self.provider = provider
        self.threads = threads
        self._encoder = encoder
        self._session = session

    @classmethod
    def load(
        cls,
        folder: str | Path | Bundle,
        precision: str = "auto",
        provider: str = "cpu",
        threads: int | None = None,
        digest: str | None = None,
        fallback: bool = False,
    ) -> Classifier:
        """Open a bundle and verify its files.

        Args:
            folder: A folder, a zip of one, a repository on the Hugging Face hub as `owner/name`
                or `owner/name@revision`, or a bundle that is already open.
            precision: `fp32`, `int8`, `portable`, or `auto`: the fastest that the bundle has.
            provider: `cpu`, `cuda`, ... or ONNX Runtime's full name of an execution provider.
            threads: Threads for one prediction. Default: all cores.
            digest: The digest that the bundle must have, as `kdedge info` prints it:
                "sha256:" and 64 digits.
            fallback: Whether nodes that the provider cannot run may run on the CPU. Otherwise
                that is an error.

        Raises:
            IntegrityError: If a file is not the one that was exported, or the digest differs.
            UsageError: If there is no such bundle, or it has no such precision.
            MachineError: If the provider is not available or cannot run every node of the graph,
                or the repository cannot be downloaded.
        """
        bundle = open_bundle(folder, digest)
        return cls.from_bundle(bundle, precision, provider, threads, fallback)

    @classmethod
    def from_bundle(
        cls,
        bundle: Bundle,
        precision: str = "auto",
        provider: str = "cpu",
        threads: int | None = None,
        fallback: bool = False,
    ) -> Classifier:
        """Do the same as `load` for a bundle that is already open."""
        provider = PROVIDERS.get(provider.lower(), provider)
        precision = _choose_precision(bundle.manifest, precision, provider)
        graph = bundle.contents[bundle.manifest.precisions[precision]]
        bundle.contents["tokenizer.json"]  # Both files are verified before one is used.
        bundle.verify_labels()
        check_graph(graph)
        session = _open_session(graph, provider, threads, fallback)
        _check_graph(session, bundle.manifest)
        return cls(TextEncoder(bundle), session, precision, provider, threads or 0)

    @property
    def spec(self) -> TaskSpec:
        return self.manifest.spec

    @property
    def nodes_per_provider(self) -> dict[str, int]:
        """Name of an execution provider -> number of the graph's nodes that run on it.

        ONNX Runtime reports the assignment; a provider may fuse several nodes into one.
        """
        counts: dict[str, int] = {}
        for part in self._session.get_provider_graph_assignment_info():
            counts[part.ep_name] = counts.get(part.ep_name, 0) + len(part.get_nodes())
        return counts

    # A str is an Iterable[str] for mypy, and a tuple may be one pair: the first match counts.
    @overload
    def predict(  # type: ignore[overload-overlap]
        self, texts: str, pair: str | None = None
    ) -> Prediction: ...

    @overload
    def predict(  # type: ignore[overload-overlap]
        self, texts: tuple[str, str]
    ) -> Prediction | list[Prediction]: ...

    @overload
    def predict(self, texts: Iterable[str] | Iterable[tuple[str, str]]) -> list[Prediction]: ...

    def predict(self, texts: Any, pair: str | None = None) -> Prediction | list[Prediction]:
        """Predict the label of one text, or of each of several.

        Args:
            texts: A text or an iterable of texts. For classifiers of pairs: a tuple of two
                texts, or an iterable of such tuples.
            pair: The second text, if `texts` is the first one of a pair.

        Returns:
            One prediction for one text or pair; else a list, in the order of the texts.

        Raises:
            UsageError: If `texts` is anything else, such as a dict or a DataFrame.
            DataError: If a text cannot be encoded.

        Example:
            ```python
            classifier.predict("a text").label
            pair_classifier.predict(("a premise", "a hypothesis")).score
            ```
        """
        if isinstance(texts, str) and pair is not None:
            return self.predict_batch([texts], [pair])[0]
        if pair is not None:
            raise UsageError(
                "pair goes with one text",
                f"texts is a {type(texts).__name__}",
                "give a list of tuples of two texts",
            )
        given = read_arguments(texts, reads_pairs=self.spec.pair)
        predictions = self.predict_batch(given.texts, given.pairs)
        return predictions[0] if given.single else predictions

    def predict_batch(
        self, texts: Iterable[str], pairs: Iterable[str] | None = None, batch_size: int = 32
    ) -> list[Prediction]:
        """Predict the labels of N texts, in their order.

        Args:
            texts: N texts.
            pairs: N second texts, for classifiers of pairs.
            batch_size: Most texts that the graph reads at once.

        Raises:
            UsageError: If `texts` or `pairs` is one string or no list.
            DataError: If a text cannot be encoded.
        """
        message = "predict_batch reads a list of texts"
        texts = read_list(texts, message, "put the text into a list, or call predict")
        if pairs is not None:
            pairs = read_list(pairs, message, "give a list of second texts")
        rows, truncated = self._encoder.tokenize(texts, pairs)
        predictions = []
        for logits, was_cut in zip(self._logits(rows, batch_size), truncated, strict=True):
            predictions.append(to_prediction(self.spec, logits, was_cut))
        return predictions

    def predict_proba(
        self, texts: Iterable[str] | Iterable[tuple[str, str]], batch_size: int = 32
    ) -> np.ndarray:
        """Compute the probabilities of N texts or pairs, in the order of `spec.labels`.

        Args:
            texts: A list of texts; for classifiers of pairs, of tuples of two texts.
            batch_size: Most texts that the graph reads at once.

        Returns:
            Rows that sum to 1; for multilabel each label's own probability.
            *Shape:* (N, C) float32

        Raises:
            UsageError: If `texts` is no list, or the classifier predicts a number.
        """
        if self.spec.kind == "regression":
            raise UsageError(
                "a regression has no probabilities", self.spec.name, "call predict or logits"
            )
        given = read_arguments(texts, reads_pairs=self.spec.pair)
        if given.single:
            raise UsageError(
                "predict_proba reads a list of texts", repr(texts)[:60], "put it into a list"
            )
        logits = self.logits(given.texts, given.pairs, batch_size)
        return probabilities(self.spec, logits).astype(np.float32)

    def logits(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, batch_size: int = 32
    ) -> np.ndarray:
        """Compute the logits of N texts, in their order: (N, C) float32."""
        rows, _ = self._encoder.tokenize(texts, pairs)
        return self._logits(rows, batch_size)

    def encode(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Encode B texts: name of an input -> int64 (B, T), padded on the right."""
        rows, _ = self._encoder.tokenize(texts, pairs)
        return self._encoder.pad(rows)

    def run(self, encoded: Mapping[str, np.ndarray]) -> np.ndarray:
        """Compute the logits of encoded texts: (B, C) float32.

        Raises:
            IntegrityError: If the graph fails on its inputs.
            MachineError: If memory runs out.
        """
        rows = len(encoded["input_ids"])
        try:
            logits = np.asarray(self._session.run(["logits"], dict(encoded))[0])
        except Exception as error:  # onnxruntime's exceptions have no public base class
            if "alloc" in str(error):
                raise MachineError(
                    "memory ran out during inference", str(error)[:300], "use smaller batches"
                ) from error
            raise IntegrityError(
                "the graph fails on the output of its tokenizer", str(error)[:300], "export again"
            ) from error
        if logits.shape != (rows, self.spec.outputs):
            raise IntegrityError(
                "the graph returns logits of another shape than its manifest says",
                f"{logits.shape} instead of {(rows, self.spec.outputs)}",
                "export again",
            )
        return logits

    def _logits(self, rows: list[TokenRow], batch_size: int) -> np.ndarray:
        logits = np.zeros((len(rows), self.spec.outputs), dtype=np.float32)
        # On a CPU only texts of equal length share a batch, so that none is padded. Padding
        # changes the order of sums, which may round an int8 activation to another integer,
        # and its arithmetic costs more than the larger batch saves.
        batches = length_batches(
            [len(row["input_ids"]) for row in rows],
            batch_size,
            equal_lengths=self.provider == PROVIDERS["cpu"],
        )
        for batch in batches:
            logits[batch] = self.run(self._encoder.pad([rows[i] for i in batch]))
        return check_finite(logits)


def to_prediction(spec: TaskSpec, logits: np.ndarray, truncated: bool = False) -> Prediction:
    """Convert the logits (C,) of one text to labels and probabilities."""
    if spec.kind == "regression":
        value = float(logits[0])
        return Prediction(spec.labels[0], value, {spec.labels[0]: value}, truncated)
    shares = probabilities(spec, logits)
    label: str | tuple[str, ...]
    if spec.kind == "multilabel":
        label = tuple(spec.labels[i] for i in np.flatnonzero(shares > spec.threshold))
    else:
        label = spec.labels[int(logits.argmax())]
    scores = dict(zip(spec.labels, shares.tolist(), strict=True))
    return Prediction(label, float(shares.max()), scores, truncated)


def probabilities(spec: TaskSpec, logits: np.ndarray) -> np.ndarray:
    """Convert logits (..., C) of a classification or multilabel task to probabilities, float64."""
    wide = logits.astype(np.float64)
    if spec.kind == "multilabel":
        return np.asarray(1 / (1 + np.exp(-wide)))
    shifted = np.exp(wide - wide.max(-1, keepdims=True, initial=-np.inf))
    return np.asarray(shifted / shifted.sum(-1, keepdims=True))


def check_finite(logits: np.ndarray) -> np.ndarray:
    """Return the logits (N, C). Raises CheckFailed if one of them is NaN or infinite."""
    bad_rows = np.flatnonzero(~np.isfinite(logits).all(1))
    if len(bad_rows):
        row = int(bad_rows[0])
        raise CheckFailed(
            "the graph returns a logit that is not a number",
            f"text {row}: {logits[row][:8].tolist()}",
            "run `kdedge verify`",
        )
    return logits


def _choose_precision(manifest: Manifest, precision: str, provider: str) -> str:
    if precision == "auto":
        order = CPU_ORDER if provider == PROVIDERS["cpu"] else OTHER_ORDER
        return next(name for name in order if name in manifest.precisions)
    if precision not in manifest.precisions:
        raise UsageError(
            "the bundle has no such precision",
            precision,
            f"one of auto, {', '.join(sorted(manifest.precisions))}",
        )
    return precision


def _open_session(
    graph: bytes, provider: str, threads: int | None, fallback: bool
) -> onnxruntime.InferenceSession:
    available = onnxruntime.get_available_providers()
    if provider not in available:
        raise MachineError(
            f"the execution provider {provider} is not in this onnxruntime",
            f"available: {', '.join(available)}",
            "install the onnxruntime build that has it, or use cpu",
        )
    try:
        session = onnxruntime.InferenceSession(
            graph, _options(threads), providers=[provider], disabled_optimizers=SLOW_FUSIONS
        )
    except Exception as error:
        raise IntegrityError(
            "ONNX Runtime cannot load the graph",
            str(error)[:300],
            "use a newer onnxruntime, or export again",
        ) from error
    used = session.get_providers()
    if not used or used[0] != provider:
        raise MachineError(
            f"{provider} was requested but is not used",
            f"the session runs on {', '.join(used)}",
            "check the driver and libraries that the provider needs",
        )
    if provider != PROVIDERS["cpu"] and not fallback:
        _check_no_fallback(session, provider)
    return session


def _check_no_fallback(session: onnxruntime.InferenceSession, provider: str) -> None:
    """Raise MachineError if nodes that compute run on the CPU instead of the provider.

    The option session.disable_cpu_ep_fallback is stricter: it also refuses the nodes that compute
    shapes, which GPU providers leave to the CPU on purpose.
    """
    on_cpu: set[str] = set()
    for part in session.get_provider_graph_assignment_info():
        if part.ep_name == PROVIDERS["cpu"]:
            on_cpu |= {node.op_type for node in part.get_nodes()}
    computing = on_cpu - SHAPE_OPERATORS
    if computing:
        raise _falls_back(provider, sorted(computing))


def _falls_back(provider: str, operators: Sequence[str]) -> MachineError:
    return MachineError(
        f"{provider} cannot run every node of this graph; the others would run on the CPU",
        f"on the CPU: {', '.join(operators)}",
        "use --provider cpu; or check the provider's driver; or allow it with "
        "--allow-cpu-fallback or Classifier.load(fallback=True)",
    )


def _options(threads: int | None) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    # Exceptions repeat what the log says; the log would write names of the graph to the terminal.
    options.log_severity_level = 4
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    # A graph cannot load weights from other files: no file lies below the null device.
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", os.devnull
    )
    if threads:
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
    return options


def _check_graph(session: onnxruntime.InferenceSession, manifest: Manifest) -> None:
    inputs = [(item.name, item.type) for item in session.get_inputs()]
    expected_inputs = [(name, "tensor(int64)") for name in manifest.inputs]
    outputs = [_output(item) for item in session.get_outputs()]
    expected_outputs = [("logits", "tensor(float)", 2, manifest.spec.outputs)]
    if sorted(inputs) != sorted(expected_inputs) or outputs != expected_outputs:
        raise IntegrityError(
            "the graph does not match the manifest",
            f"inputs {inputs}, outputs {outputs}"[:300],
            "export again",
        )


def _output(item: Any) -> tuple[str, str, int, Any]:
    """Return name, type, number of axes and last axis of an output; a scalar has no axis."""
    shape = item.shape
    if not isinstance(shape, list):  # A sequence has no shape.
        return item.name, item.type, -1, None
    return item.name, item.type, len(shape), shape[-1] if shape else None
