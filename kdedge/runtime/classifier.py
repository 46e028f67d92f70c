"""A classifier that runs a bundle on ONNX Runtime, without torch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from kdedge.errors import CheckFailed, IntegrityError, MachineError, UsageError
from kdedge.runtime.bundle import Bundle, Manifest
from kdedge.runtime.spec import TaskSpec
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

SLOW_FUSIONS = ["SkipLayerNormFusion"]
"""Graph optimizations of ONNX Runtime that make small encoders slower on CPUs."""


@dataclass(frozen=True)
class Prediction:
    """The prediction for one text.

    Attributes:
        label: The best label; for multilabel all labels above 0.5; for regression "score".
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
    """Predicts labels of texts; one instance may serve many threads at once."""

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
        folder: str | Path,
        precision: str = "auto",
        provider: str = "cpu",
        threads: int | None = None,
    ) -> Classifier:
        """Open a bundle and verify its files.

        Args:
            precision: `fp32`, `int8`, `portable`, or `auto`: the fastest that the bundle has.
            provider: `cpu`, `cuda`, ... or ONNX Runtime's full name of an execution provider.
            threads: Threads for one prediction. Default: all cores.

        Raises:
            IntegrityError: If a file is not the one that was exported.
            UsageError: If the bundle has no such precision.
            MachineError: If the provider is not available, or not used by the session.
        """
        return cls.from_bundle(Bundle.open(folder), precision, provider, threads)

    @classmethod
    def from_bundle(
        cls,
        bundle: Bundle,
        precision: str = "auto",
        provider: str = "cpu",
        threads: int | None = None,
    ) -> Classifier:
        """Do the same as `load` for a bundle that is already open."""
        provider = PROVIDERS.get(provider.lower(), provider)
        precision = _choose_precision(bundle.manifest, precision, provider)
        graph = bundle.contents[bundle.manifest.precisions[precision]]
        session = _open_session(graph, provider, threads)
        _check_graph(session, bundle.manifest)
        return cls(TextEncoder(bundle), session, precision, provider, threads or 0)

    @property
    def spec(self) -> TaskSpec:
        return self.manifest.spec

    def predict(self, text: str, pair: str | None = None) -> Prediction:
        """Predict the label of one text, or of one pair of texts."""
        return self.predict_batch([text], None if pair is None else [pair])[0]

    def predict_batch(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, batch_size: int = 32
    ) -> list[Prediction]:
        """Predict the labels of N texts, in their order."""
        rows, truncated = self._encoder.tokenize(texts, pairs)
        predictions = []
        for logits, was_cut in zip(self._logits(rows, batch_size), truncated, strict=True):
            predictions.append(to_prediction(self.spec, logits, was_cut))
        return predictions

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
        try:
            return np.asarray(self._session.run(["logits"], dict(encoded))[0])
        except Exception as error:  # onnxruntime's exceptions have no public base class
            if "alloc" in str(error):
                raise MachineError(
                    "memory ran out during inference", str(error)[:300], "use smaller batches"
                ) from error
            raise IntegrityError(
                "the graph fails on the output of its tokenizer", str(error)[:300], "export again"
            ) from error

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
    wide = logits.astype(np.float64)
    label: str | tuple[str, ...]
    if spec.kind == "multilabel":
        probabilities = 1 / (1 + np.exp(-wide))
        label = tuple(spec.labels[i] for i in np.flatnonzero(probabilities > 0.5))
    else:
        shifted = np.exp(wide - wide.max())
        probabilities = shifted / shifted.sum()
        label = spec.labels[int(logits.argmax())]
    scores = dict(zip(spec.labels, probabilities.tolist(), strict=True))
    return Prediction(label, float(probabilities.max()), scores, truncated)


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


def _open_session(graph: bytes, provider: str, threads: int | None) -> onnxruntime.InferenceSession:
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
            "read ONNX Runtime's log to see what is missing",
        )
    return session


def _options(threads: int | None) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # A graph cannot load weights from other files: no file lies below the null device.
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", os.devnull
    )
    if threads:
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
    return options


def _check_graph(session: onnxruntime.InferenceSession, manifest: Manifest) -> None:
    inputs = [item.name for item in session.get_inputs()]
    outputs = [(item.name, item.shape[-1]) for item in session.get_outputs()]
    if sorted(inputs) != sorted(manifest.inputs) or outputs != [("logits", manifest.spec.outputs)]:
        raise IntegrityError(
            "the graph does not match the manifest",
            f"inputs {inputs}, outputs {outputs}",
            "export again",
        )
