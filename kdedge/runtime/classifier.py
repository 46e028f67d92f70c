"""A classifier that runs a bundle on ONNX Runtime, without torch."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np
import onnxruntime

from kdedge.errors import IntegrityError, MachineError, UsageError
from kdedge.runtime.agreement import AgreementTable
from kdedge.runtime.bundle import Bundle
from kdedge.runtime.bundle_source import open_bundle
from kdedge.runtime.classifier_source import ClassifierSource
from kdedge.runtime.layout import AGREEMENT
from kdedge.runtime.prediction import Prediction, check_finite, probabilities, to_prediction
from kdedge.runtime.session import PROVIDERS, TRY_CPU, choose_precision, open_session
from kdedge.runtime.spec import TaskSpec
from kdedge.runtime.text_arguments import check_iterable, read_arguments, read_list
from kdedge.runtime.text_encoder import (
    TextEncoder,
    TokenRow,
    check_batch_size,
    length_batches,
    lengths_of,
)

STREAM_BATCHES = 32
"""Number of batches that `predict_stream` reads ahead, to sort their texts by length."""


class Classifier:
    """Predicts labels of texts; one instance may serve many threads at once.

    It can be pickled: the other process opens the same bundle and checks its digest. As a context
    manager it frees the memory of the graph at the end.

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
        source: ClassifierSource,
    ) -> None:
        self.manifest = encoder.manifest
        self.precision = precision
        self.provider = provider
        self.threads = threads
        self._encoder = encoder
        self._session = session
        self._source = source

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
            precision: `fp32`, `int8`, `fp16`, `portable`, or `auto`: the fastest that the bundle
                has.
            provider: `cpu`, `cuda`, ... or ONNX Runtime's full name of an execution provider.
            threads: Threads for one prediction. None or 0: all cores.
            digest: The digest that the bundle must have, as `kdedge info` prints it:
                "sha256:" and 64 digits.
            fallback: Whether nodes that the provider cannot run may run on the CPU. Otherwise
                that is an error.

        Raises:
            IntegrityError: If a file is not the one that was exported, or the digest differs.
            UsageError: If there is no such bundle, it has no such precision, or `threads` is no
                such number.
            MachineError: If the provider is not available or cannot run every node of the graph,
                or the repository cannot be downloaded; or if the bundle cleans texts with ftfy,
                which is not installed.
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
        """Load a classifier from an open bundle; see `load`."""
        provider = PROVIDERS.get(provider.lower(), provider)
        precision = choose_precision(bundle.manifest, precision, provider)
        graph = bundle.contents[bundle.manifest.precisions[precision]]
        bundle.contents["tokenizer.json"]  # Both files are verified before one is used.
        bundle.verify_labels()
        session = open_session(graph, bundle.manifest, provider, threads, fallback)
        source = ClassifierSource.of(bundle, fallback)
        return cls(TextEncoder(bundle), session, precision, provider, threads or 0, source)

    def __reduce__(self) -> tuple[Any, ...]:
        source = self._source
        settings = (self.precision, self.provider, self.threads, source.digest, source.fallback)
        return Classifier.load, (source.folder, *settings)

    def __enter__(self) -> Classifier:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the memory of the graph. Later predictions raise UsageError."""
        self._session = None

    @property
    def spec(self) -> TaskSpec:
        return self.manifest.spec

    @property
    def temperature(self) -> float:
        """The number that divides the logits of a classification before the softmax."""
        return self.manifest.temperature

    def agreement_table(self) -> AgreementTable:
        """Return how often this student and its teacher agree on the validation texts.

        Raises:
            UsageError: If the bundle has no such table, or it was measured with another precision.
            IntegrityError: If the table is damaged.
        """
        bundle = open_bundle(self._source.folder, self._source.digest)
        if AGREEMENT not in bundle.contents:
            raise UsageError(
                "this bundle has no agreement table",
                f"{self._source.folder} has no {AGREEMENT}",
                "export a student of a run again; a regression has none",
            )
        table = AgreementTable.from_json(bundle.json(AGREEMENT))
        if table.precision != self.precision:
            raise UsageError(
                "agreement was measured with another file of this bundle",
                f"{table.precision}, not {self.precision}",
                f'load the classifier with precision="{table.precision}"',
            )
        return table

    @property
    def fallback(self) -> bool:
        """Whether nodes that the provider cannot run may run on the CPU."""
        return self._source.fallback

    @property
    def nodes_per_provider(self) -> dict[str, int]:
        """Name of an execution provider -> number of the graph's nodes that run on it.

        ONNX Runtime reports the assignment; a provider may fuse several nodes into one.
        """
        counts: dict[str, int] = {}
        for part in self._open_session().get_provider_graph_assignment_info():
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
            CheckFailed: If the logits are not finite. That holds for all predictions.

        Example:
            ```python
            classifier.predict("a text").label
            pair_classifier.predict(("a premise", "a hypothesis")).score
            ```
        """
        if isinstance(texts, str) and (pair is not None or not self.spec.pair):
            return self._predict_one(texts, pair)
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
            UsageError: If `texts` or `pairs` is one string, a dict, a set or a table.
            DataError: If a text cannot be encoded.
            CheckFailed: If the logits are not finite.
        """
        message = "predict_batch reads a list of texts"
        texts = read_list(texts, message, "put the text into a list, or call predict")
        if pairs is not None:
            pairs = read_list(pairs, message, "give a list of second texts")
        return self.predict_with_logits(texts, pairs, batch_size)[1]

    def predict_with_logits(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, batch_size: int = 32
    ) -> tuple[np.ndarray, list[Prediction]]:
        """Compute the logits (N, C) of N texts, and their predictions."""
        rows, truncated = self._encoder.tokenize(texts, pairs)
        logits = self._logits(rows, batch_size)
        predictions = []
        for row, was_cut in zip(logits, truncated, strict=True):
            predictions.append(to_prediction(self.spec, row, was_cut, self.temperature))
        return logits, predictions

    def predict_stream(
        self, texts: Iterable[str] | Iterable[tuple[str, str]], batch_size: int = 32
    ) -> Iterator[Prediction]:
        """Predict the labels of an iterable's texts, in their order.

        The iterable may be longer than memory: 32 batches are read at a time. The first
        prediction comes after that many texts, so give a slow source a small `batch_size`.

        Args:
            texts: An iterable of texts; for classifiers of pairs, of tuples of two texts.
            batch_size: Most texts that the graph reads at once.

        Raises:
            UsageError: If `texts` is not an iterable of texts.
            DataError: If a text cannot be encoded.
            CheckFailed: If the logits are not finite.

        Example:
            ```python
            with open("texts.txt") as lines:
                for prediction in classifier.predict_stream(lines):
                    print(prediction.label)
            ```
        """
        check_iterable(texts, "predict_stream reads an iterable of texts", "put it into a list")
        check_batch_size(batch_size)
        items = iter(texts)
        while chunk := list(islice(items, batch_size * STREAM_BATCHES)):
            given = read_arguments(chunk, reads_pairs=self.spec.pair)
            yield from self.predict_batch(given.texts, given.pairs, batch_size)

    async def predict_async(self, texts: Any, pair: str | None = None) -> Any:
        """Call `predict` in a thread, so that the event loop can run meanwhile.

        Example:
            ```python
            prediction = await classifier.predict_async("a text")
            ```
        """
        return await asyncio.to_thread(self.predict, texts, pair)

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
            UsageError: If `texts` is one text, a dict, a set or a table, or the classifier predicts
                a number.
            DataError: If a text cannot be encoded.
            CheckFailed: If the logits are not finite.
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
        return probabilities(self.spec, logits, self.temperature).astype(np.float32)

    def logits(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, batch_size: int = 32
    ) -> np.ndarray:
        """Compute the logits of N texts, in their order: (N, C) float32.

        Raises:
            DataError: If a text cannot be encoded.
            CheckFailed: If the logits are not finite.
        """
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
            MachineError: If memory runs out, or an execution provider for a device fails.
        """
        session = self._open_session()
        rows = len(encoded["input_ids"])
        try:
            logits = np.asarray(session.run(["logits"], dict(encoded))[0])
        except Exception as error:  # onnxruntime's exceptions have no public base class
            if "alloc" in str(error):
                raise MachineError(
                    "memory ran out during inference", str(error)[:300], "use smaller batches"
                ) from error
            if self.provider != PROVIDERS["cpu"]:
                raise MachineError(
                    f"{self.provider} fails on the graph", str(error)[:300], TRY_CPU
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

    def _predict_one(self, text: str, pair: str | None) -> Prediction:
        encoded, was_cut = self._encoder.encode_one(text, pair)
        logits = check_finite(self.run(encoded))
        return to_prediction(self.spec, logits[0], was_cut, self.temperature)

    def _open_session(self) -> onnxruntime.InferenceSession:
        if self._session is None:
            raise UsageError(
                "this classifier is closed", self.manifest.name, "load the bundle again"
            )
        return self._session

    def _logits(self, rows: list[TokenRow], batch_size: int) -> np.ndarray:
        logits = np.zeros((len(rows), self.spec.outputs), dtype=np.float32)
        # On a CPU only texts of equal length share a batch, so that none is padded. Padding
        # changes the order of sums, which may round an int8 activation to another integer,
        # and it costs more time than larger batches save. For pairs both lengths are equal:
        # cross-attention pads the shorter text of a pair.
        batches = length_batches(
            [lengths_of(row) for row in rows],
            batch_size,
            equal_lengths=self.provider == PROVIDERS["cpu"],
        )
        for batch in batches:
            logits[batch] = self.run(self._encoder.pad([rows[i] for i in batch]))
        return check_finite(logits)
