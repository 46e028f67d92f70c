"""A bundle, opened: texts in, labels and scores out, on ONNX Runtime, without torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from kdedge.errors import CheckFailed, DataError, IntegrityError, MachineError, UsageError
from kdedge.runtime.bundle import Bundle, Manifest
from kdedge.runtime.spec import TaskSpec

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
}
"""Short name -> ONNX Runtime's name; a full name is taken as it is."""

CHARACTERS_PER_TOKEN = 32
"""A tokenizer reads a whole text before it truncates: each text is cut to this many characters a token first."""

SLOW_FUSIONS = ["SkipLayerNormFusion"]
"""Graph rewrites of ONNX Runtime that make small encoders slower on CPUs."""


Result = TypeVar("Result")


@dataclass(frozen=True)
class Prediction:
    """One answer.

    label: the name; for multilabel the names above one half; `score` for regression.
    score: probability of that label (the highest one for multilabel), or the regression's value.
    scores: label name -> probability, or {"score": value}.
    truncated: whether the text was longer than the model reads.
    """

    label: str | tuple[str, ...]
    score: float
    scores: dict[str, float]
    truncated: bool = False

    def to_json(self) -> dict[str, Any]:
        label = list(self.label) if isinstance(self.label, tuple) else self.label
        return {"label": label, "score": self.score, "scores": self.scores} | (
            {"truncated": True} if self.truncated else {}
        )


class Classifier:
    """Answers texts; one may serve many threads at once."""

    def __init__(
        self,
        manifest: Manifest,
        tokenizer: Tokenizer,
        session: onnxruntime.InferenceSession,
        precision: str,
        provider: str,
        threads: int,
    ) -> None:
        self.manifest, self.precision, self.provider, self.threads = (
            manifest,
            precision,
            provider,
            threads,
        )
        self._tokenizer, self._session = tokenizer, session

    @classmethod
    def load(
        cls,
        folder: str | Path,
        precision: str = "auto",
        provider: str = "cpu",
        threads: int | None = None,
    ) -> Classifier:
        """Open a bundle; every file is checked against its hash first.

        precision: `fp32`, `fp16`, `int8`, `portable`, or `auto`: on the CPU the first of int8, portable, fp32 and fp16 that
        the bundle has; elsewhere int8 comes last: its operators have kernels on the CPU alone.
        provider: `cpu`, `cuda`, ... or ONNX Runtime's name of an execution provider.
        threads: of one answer; default: ONNX Runtime's choice, all cores.
        Raises IntegrityError, UsageError for a precision that is not there, MachineError for a provider that is
        not there or would not be used.
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
        """As `load`, from a bundle that is open already."""
        manifest, name = bundle.manifest, PROVIDERS.get(provider.lower(), provider)
        if precision == "auto":
            wished = (
                ("int8", "portable", "fp32", "fp16")
                if name == PROVIDERS["cpu"]
                else ("fp32", "fp16", "portable", "int8")
            )
            precision = next(wish for wish in wished if wish in manifest.precisions)
        if precision not in manifest.precisions:
            raise UsageError(
                "the bundle has no such precision",
                precision,
                f"one of auto, {', '.join(sorted(manifest.precisions))}",
            )
        session = _session(bundle.contents[manifest.precisions[precision]], name, threads)
        _check_graph(session, manifest)
        return cls(manifest, _tokenizer(bundle), session, precision, name, threads or 0)

    @property
    def spec(self) -> TaskSpec:
        return self.manifest.spec

    def encode(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """The graph's inputs for B texts: name -> int64 (B, T), padded on the right to the longest."""
        return self._pad(self._tokenize(texts, pairs)[0])

    def run(self, encoded: Mapping[str, np.ndarray]) -> np.ndarray:
        """Logits (B, C) float32 of encoded texts.

        Raises IntegrityError where the graph fails on them, MachineError where memory runs out.
        """
        try:
            return np.asarray(self._session.run(["logits"], dict(encoded))[0])
        except Exception as error:  # onnxruntime's exceptions have no public base
            if "alloc" in str(error):
                raise MachineError(
                    "memory ran out while answering", str(error)[:300], "use smaller batches"
                ) from error
            raise IntegrityError(
                "the graph cannot answer what its tokenizer gives it",
                str(error)[:300],
                "export again",
            ) from error

    def logits(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, batch_size: int = 32
    ) -> np.ndarray:
        """Logits (N, C) float32 of N texts, in their order; texts of like length share a batch, on a CPU those of equal length."""
        return self._logits(self._tokenize(texts, pairs)[0], batch_size)

    def predict(self, text: str, pair: str | None = None) -> Prediction:
        """The answer to one text, or to one pair of texts."""
        return self.predict_batch([text], None if pair is None else [pair])[0]

    def predict_batch(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, batch_size: int = 32
    ) -> list[Prediction]:
        """Answers to N texts, in their order."""
        rows, truncated = self._tokenize(texts, pairs)
        return [
            self._answer(row, cut)
            for row, cut in zip(self._logits(rows, batch_size), truncated, strict=True)
        ]

    def _logits(self, rows: list[dict[str, list[int]]], batch_size: int) -> np.ndarray:
        out = np.zeros((len(rows), self.spec.outputs), dtype=np.float32)
        # On a CPU texts of unequal length are not padded to one: a sum in another order may round an int8 activation to another
        # integer, and the arithmetic on padding costs more than the larger batch saves.
        for chosen in batches_of(
            [len(row["input_ids"]) for row in rows],
            batch_size,
            alike=self.provider == PROVIDERS["cpu"],
        ):
            out[chosen] = self.run(self._pad([rows[i] for i in chosen]))
        return finite(out)

    def _tokenize(
        self, texts: Sequence[str], pairs: Sequence[str] | None
    ) -> tuple[list[dict[str, list[int]]], list[bool]]:
        """Token rows of each text, and whether something of it was left unread."""
        if (pairs is not None) != self.spec.pair:
            raise DataError(
                "this classifier reads "
                + ("two texts at a time" if self.spec.pair else "one text at a time"),
                "something else",
                "see the bundle's README.md",
            )
        if pairs is not None and len(pairs) != len(texts):
            raise DataError("each text needs its pair", f"{len(texts)} texts, {len(pairs)} pairs")
        budget = self.manifest.max_length * CHARACTERS_PER_TOKEN
        both = (texts,) if pairs is None else (texts, pairs)
        columns = [[_clean(text, budget) for text in column] for column in both]
        long = [any(len(column[i]) > budget for column in both) for i in range(len(texts))]
        given = columns[0] if pairs is None else list(zip(*columns, strict=True))
        encodings = _unpanicked(lambda: self._tokenizer.encode_batch(given))
        rows = [
            {"input_ids": e.ids, "attention_mask": e.attention_mask, "token_type_ids": e.type_ids}
            for e in encodings
        ]
        return rows, [cut or bool(e.overflowing) for cut, e in zip(long, encodings, strict=True)]

    def _pad(self, rows: list[dict[str, list[int]]]) -> dict[str, np.ndarray]:
        longest = max((len(row["input_ids"]) for row in rows), default=1)
        batch = {}
        for name in self.manifest.inputs:
            array = np.full(
                (len(rows), longest),
                self.manifest.pad_token_id if name == "input_ids" else 0,
                dtype=np.int64,
            )
            for i, row in enumerate(rows):
                array[i, : len(row[name])] = row[name]
            batch[name] = array
        return batch

    def _answer(self, logits: np.ndarray, truncated: bool) -> Prediction:
        labels = self.spec.labels
        if self.spec.kind == "regression":
            value = float(logits[0])
            return Prediction(labels[0], value, {labels[0]: value}, truncated)
        wide = logits.astype(np.float64)
        if self.spec.kind == "multilabel":
            chances = 1 / (1 + np.exp(-wide))
            chosen: str | tuple[str, ...] = tuple(
                name for name, chance in zip(labels, chances, strict=True) if chance > 0.5
            )
        else:
            shifted = np.exp(wide - wide.max())
            chances = shifted / shifted.sum()
            chosen = labels[int(logits.argmax())]
        return Prediction(
            chosen,
            float(chances.max()),
            dict(zip(labels, chances.tolist(), strict=True)),
            truncated,
        )


def batches_of(lengths: Sequence[int], size: int, *, alike: bool) -> Iterator[list[int]]:
    """Places of N texts in batches of at most `size`, from the shortest to the longest; alike: only texts of equal length share one."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    for _, group in groupby(order, key=lambda i: lengths[i] if alike else 0):
        places = list(group)
        for start in range(0, len(places), size):
            yield places[start : start + size]


def _clean(text: str, budget: int) -> str:
    if not isinstance(text, str):
        raise DataError("a text must be a string", f"{type(text).__name__}", "convert it first")
    cut = text[:budget]
    try:
        cut.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            "a text holds half a character (a lone surrogate)",
            f"at character {error.start}",
            "decode the text properly, or replace it",
        ) from error
    return cut


def finite(logits: np.ndarray) -> np.ndarray:
    """The logits (N, C) themselves. Raises GateFailed where one is not a finite number."""
    if not np.isfinite(logits).all():
        row = int(np.flatnonzero(~np.isfinite(logits).all(1))[0])
        raise CheckFailed(
            "the graph answers with a logit that is not a number",
            f"text {row}: {logits[row][:8].tolist()}",
            "run `kdedge verify`",
        )
    return logits


def _tokenizer(bundle: Bundle) -> Tokenizer:
    def make() -> Tokenizer:
        tokenizer = Tokenizer.from_buffer(bundle.contents["tokenizer.json"])
        tokenizer.no_padding()
        tokenizer.enable_truncation(bundle.manifest.max_length)
        return tokenizer

    return _unpanicked(make)


def _unpanicked(act: Callable[[], Result]) -> Result:
    """Call `tokenizers`: a hostile tokenizer.json makes it raise PanicException, which is no Exception."""
    try:
        return act()
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:
        raise IntegrityError(
            "tokenizer.json of the bundle cannot be used", str(error)[:200], "export again"
        ) from None


def _session(graph: bytes, provider: str, threads: int | None) -> onnxruntime.InferenceSession:
    there = onnxruntime.get_available_providers()
    if provider not in there:
        raise MachineError(
            f"the execution provider {provider} is not in this onnxruntime",
            f"there are {', '.join(there)}",
            "install the onnxruntime build that has it, or use cpu",
        )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # A graph that keeps weights in another file finds none: no folder can be this one.
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", os.devnull
    )
    if threads:
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(
            graph, options, providers=[provider], disabled_optimizers=SLOW_FUSIONS
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
            f"{provider} was asked for and is not used",
            f"the session runs on {', '.join(used)}",
            "see ONNX Runtime's log for what it lacks",
        )
    return session


def _check_graph(session: onnxruntime.InferenceSession, manifest: Manifest) -> None:
    inputs = [item.name for item in session.get_inputs()]
    outputs = [(item.name, item.shape[-1]) for item in session.get_outputs()]
    if sorted(inputs) != sorted(manifest.inputs) or outputs != [("logits", manifest.spec.outputs)]:
        raise IntegrityError(
            "the graph is not the one the manifest describes",
            f"inputs {inputs}, outputs {outputs}",
            "export again",
        )
