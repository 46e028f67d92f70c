"""Writes a bundle: files first, manifest last, then one rename; the old bundle stays until then."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from kdedge.export.card import model_card
from kdedge.export.figures import ParityFigures, VocabularyFigures
from kdedge.export.neutral_texts import neutral_rows
from kdedge.export.provenance import Provenance
from kdedge.export.qat import QuantizedStudent
from kdedge.export.sbom import sbom_text
from kdedge.export.scheme import QuantScheme
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from kdedge import __version__
from kdedge.data.task import Split
from kdedge.io.atomic import json_text, remove, replace_dir, write_atomic
from kdedge.runtime import Classifier
from kdedge.runtime.agreement import AgreementTable
from kdedge.runtime.bundle import Bundle
from kdedge.runtime.evaluation import EvaluationTexts
from kdedge.runtime.golden import golden_label
from kdedge.runtime.layout import AGREEMENT, EVALUATION, LAYOUT, PRECISIONS, SBOM
from kdedge.runtime.manifest import Manifest, write_manifest
from kdedge.runtime.metrics import score
from kdedge.runtime.spec import TaskSpec

GOLDEN_TEXTS = 16
"""Golden texts of the test split, if a user asks for these."""

GOLDEN_NUMBERS = 100_000
"""Most golden logits: a task with many labels gets fewer golden texts."""

GOLDEN_TOLERANCE = {"fp32": 1e-4, "int8": 0.5, "portable": 0.5, "fp16": 0.05}
"""Largest logit difference on another machine that `kdedge verify` accepts.

fp32 sums have another order there. int8 activations may fall on the other side of a rounding step,
and a model may have several of them.

fp16 rounds about 12 results of each layer, each by a share of at most 2^-11. Independent errors add
up to sqrt(12 L) 2^-11 after L layers: 0.6 % with 12 layers, or 0.05 for logits of 8. Measured on
400 texts of SST-2 with a MiniLM of 6 layers, whose logits reach 3.6: 0.002, lower quartile 0.0005.
"""

NO_FIGURES = ParityFigures()
NO_SCORES: Mapping[str, float] = {}


@dataclass(frozen=True)
class ExportInput:
    """A trained classifier and what its bundle says about it.

    Attributes:
        name: Title of the bundle.
        scores: As in the manifest: metric, size of the split, scores in torch.
        teacher: Description of the teacher, for people.
        sources: What decides whether a bundle is current, as in the manifest.
        largest_drop: Loss on the validation split above which the int8 file is left out; None: the
            int8 file is never left out, and no variants are compared.
        vocabulary: Figures, if the vocabulary was reduced.
        calibrated: Whether the labels of the validation split may set a temperature.
        teacher_validation: The teacher's logits on the validation split (N, C), if it has one.
        provenance: What the bill of materials says; None: none is written.
        evaluation: Texts of the test split that travel with the bundle; None: none do.
        clean: Steps that clean every text that the bundle reads, as they cleaned what it learned.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    spec: TaskSpec
    max_length: int
    name: str
    scores: Mapping[str, Any]
    teacher: Mapping[str, Any]
    sources: Mapping[str, Any] = field(default_factory=dict)
    largest_drop: float | None = None
    vocabulary: VocabularyFigures | None = None
    calibrated: bool = False
    teacher_validation: np.ndarray | None = None
    provenance: Provenance | None = None
    evaluation: EvaluationTexts | None = None
    clean: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExportedFiles:
    """The graphs that were written from a classifier.

    Attributes:
        graphs: Name of a precision -> ONNX model.
        scheme: Of the int8 and the portable graph.
        quantized: The student that they were written from; None: fp32 was quantized dynamically.
    """

    graphs: Mapping[str, onnx.ModelProto]
    scheme: QuantScheme
    quantized: QuantizedStudent | None = None

    @property
    def int8_variant(self) -> str | None:
        """Name of the variant that is the int8 file."""
        if "int8" not in self.graphs:
            return None
        return "dynamic" if self.quantized is None else self.quantized.result.weights


def begin_bundle(part: Path, source: ExportInput, files: ExportedFiles) -> Bundle:
    """Write everything except the model card and golden answers into `part`, and open it."""
    remove(part)
    (part / "onnx").mkdir(parents=True)
    for precision, graph in files.graphs.items():
        (part / PRECISIONS[precision]).write_bytes(graph.SerializeToString())
    source.model.config.save_pretrained(part)
    _save_tokenizer(source.tokenizer, part, source.max_length)
    write_atomic(part / "README.md", "")
    write_atomic(part / "golden.json", "{}")
    if source.evaluation is not None:
        write_atomic(part / EVALUATION, source.evaluation.to_text())
    for path in list(part.iterdir()):
        # Slow tokenizers also save their vocabulary in files of their own.
        if path.is_file() and path.name not in LAYOUT:
            path.unlink()
    write_manifest(part, manifest_of(source, files, tuple(files.graphs)))
    return Bundle.open(part)


def finish_bundle(
    part: Path,
    folder: Path,
    manifest: Manifest,
    figures: ParityFigures,
    golden: Mapping[str, Any],
    *,
    agreement: AgreementTable | None = None,
    provenance: Provenance | None = None,
) -> None:
    """Complete the bundle in `part` and move it to `folder`.

    Graphs that the manifest does not name are removed. With `provenance` the bundle gets a bill of
    materials; the manifest lists it, so that the digest and a signature cover it.
    """
    if agreement is not None:
        write_atomic(part / AGREEMENT, json_text(agreement.to_json()))
    for precision in PRECISIONS.keys() - manifest.precisions.keys():
        (part / PRECISIONS[precision]).unlink(missing_ok=True)
    write_atomic(part / "golden.json", json_text(golden))
    sizes = {name: (part / path).stat().st_size for name, path in manifest.precisions.items()}
    with_eval = (part / EVALUATION).is_file()
    card = model_card(manifest, figures, sizes, golden_from=golden["texts"], with_eval=with_eval)
    write_atomic(part / "README.md", card)
    if provenance is not None:
        write_atomic(part / SBOM, sbom_text(part, manifest, provenance))
    write_manifest(part, manifest)
    Bundle.open(part).verify_files()
    replace_dir(part, folder)


def manifest_of(
    source: ExportInput,
    files: ExportedFiles,
    precisions: Sequence[str],
    figures: ParityFigures = NO_FIGURES,
    scores: Mapping[str, float] = NO_SCORES,
    temperature: float = 1.0,
) -> Manifest:
    """Return the manifest of a bundle with the files `precisions`.

    `scores` is the metric of each file on the test split.
    """
    return Manifest(
        name=source.name,
        spec=source.spec,
        max_length=source.max_length,
        pad_token_id=int(source.tokenizer.pad_token_id),
        inputs=tuple(item.name for item in files.graphs["fp32"].graph.input),
        precisions={precision: PRECISIONS[precision] for precision in precisions},
        kdedge=__version__,
        scheme=files.scheme.to_json() if "int8" in precisions else None,
        parity=figures.to_json(),
        scores={**source.scores, **scores},
        teacher=source.teacher,
        sources=source.sources,
        temperature=temperature,
        clean=source.clean,
    )


def golden_rows(
    classifiers: Mapping[str, Classifier], split: Split, golden_from: str = "neutral"
) -> dict[str, Any]:
    """Return golden texts, with their token ids, and each file's logits and labels.

    Args:
        classifiers: Name of a precision -> classifier.
        split: The test split.
        golden_from: `neutral`: texts that come with kdedge. `test`: texts of all lengths of the
            test split.
    """
    spec = next(iter(classifiers.values())).spec
    rows = _test_rows(split) if golden_from == "test" else neutral_rows(pair=spec.pair)
    most = max(1, GOLDEN_NUMBERS // (spec.outputs * len(classifiers)))
    return {
        "texts": golden_from,
        "tolerance": {name: GOLDEN_TOLERANCE[name] for name in classifiers},
        "rows": [_golden_row(classifiers, row) for row in rows[:most]],
    }


def _test_rows(split: Split) -> list[tuple[str, ...]]:
    """Choose texts of a split from the shortest to the longest."""
    order = np.argsort([len(text) for text in split.texts], kind="stable")
    positions = np.unique(np.linspace(0, len(order) - 1, GOLDEN_TEXTS).astype(int))
    rows: list[tuple[str, ...]] = []
    for i in order[positions]:
        if split.pairs is None:
            rows.append((split.texts[i],))
        else:
            rows.append((split.texts[i], split.pairs[i]))
    return rows


def _golden_row(classifiers: Mapping[str, Classifier], texts: tuple[str, ...]) -> dict[str, Any]:
    row: dict[str, Any] = {"text": texts[0], "logits": {}, "labels": {}}
    pairs = None
    if len(texts) > 1:
        row["pair"] = texts[1]
        pairs = [texts[1]]
    for precision, classifier in classifiers.items():
        encoded = classifier.encode(texts[:1], pairs)
        row["input_ids"] = encoded["input_ids"][0].tolist()
        logits = classifier.run(encoded)[0].tolist()
        rounded = [float(f"{value:.7g}") for value in logits]
        row["logits"][precision] = rounded
        row["labels"][precision] = golden_label(classifier.spec, np.array(rounded, np.float32))
    return row


def file_score(classifier: Classifier, split: Split) -> tuple[float, np.ndarray]:
    """Return the metric of a file on a split, and its logits (N, C)."""
    logits = classifier.logits(split.texts, split.pairs)
    spec = classifier.spec
    return score(spec, logits, split.labels), logits


def _save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path, max_length: int) -> None:
    """Save tokenizer.json without padding or truncation, and Hugging Face's configuration."""
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.save_pretrained(folder)
    config = folder / "tokenizer_config.json"
    document = json.loads(config.read_text(encoding="utf-8")) | {"model_max_length": max_length}
    if document.get("tokenizer_class") == "TokenizersBackend":
        # The same class under the name that transformers 4 and 5 know.
        document["tokenizer_class"] = "PreTrainedTokenizerFast"
    write_atomic(config, json_text(document))
