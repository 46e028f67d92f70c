"""Puts a bundle together: files first, manifest last, then one rename; the former bundle stands until then."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from kdedge.export.card import model_card
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from kdedge import __version__
from kdedge.data.task import Split
from kdedge.io.atomic import json_text, remove, replace_dir, write_atomic
from kdedge.runtime import Classifier
from kdedge.runtime.bundle import LAYOUT, PRECISIONS, Bundle, Manifest, write_manifest
from kdedge.runtime.metrics import score
from kdedge.runtime.spec import TaskSpec

GOLDEN_TEXTS = 16
GOLDEN_TOLERANCE = {"fp32": 1e-4, "fp16": 1e-4, "int8": 0.5, "portable": 0.5}
"""Largest logit difference that `kdedge verify` lets pass on another machine: fp32 sums in another order; int8
activations may fall on the other side of a rounding step, and an embedded model may see several of these."""


@dataclass(frozen=True)
class ExportInput:
    """What a bundle is made from.

    quantized: the fake-quantized model that the int8 file is written from; none: the fp32 graph is quantized dynamically.
    calibrated: the same as it was before tuning; none: it was not tuned. tuning: figures of calibration and tuning.
    largest_drop: of the int8 file on the validation split, to be packed; none: it is packed in any case.
    scores, parity, teacher: as in the manifest. graphs: precision -> ONNX model. scheme: of the int8 one.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    spec: TaskSpec
    max_length: int
    name: str
    scores: Mapping[str, Any]
    teacher: Mapping[str, Any]
    quantized: PreTrainedModel | None = None
    calibrated: PreTrainedModel | None = None
    largest_drop: float | None = None
    tuning: Mapping[str, Any] = field(default_factory=dict)
    graphs: Mapping[str, onnx.ModelProto] = field(default_factory=dict)
    scheme: Mapping[str, Any] | None = None
    parity: Mapping[str, Any] = field(default_factory=dict)


def begin_bundle(part: Path, made: ExportInput) -> Bundle:
    """Write everything but model card and golden answers into `part`, and open it."""
    remove(part)
    (part / "onnx").mkdir(parents=True)
    for precision, graph in made.graphs.items():
        (part / PRECISIONS[precision]).write_bytes(graph.SerializeToString())
    made.model.config.save_pretrained(part)
    _save_tokenizer(made.tokenizer, part, made.max_length)
    for name in ("README.md", "golden.json"):
        write_atomic(part / name, "{}" if name.endswith("json") else "")
    for path in list(
        part.iterdir()
    ):  # slow tokenizers save their vocabulary in files of their own, too
        if path.is_file() and path.name not in LAYOUT:
            path.unlink()
    write_manifest(part, manifest_of(made))
    return Bundle.open(part)


def manifest_of(made: ExportInput) -> Manifest:
    first = next(iter(made.graphs.values()))
    return Manifest(
        name=made.name,
        spec=made.spec,
        max_length=made.max_length,
        pad_token_id=int(made.tokenizer.pad_token_id),
        inputs=tuple(item.name for item in first.graph.input),
        precisions={precision: PRECISIONS[precision] for precision in made.graphs},
        kdedge=__version__,
        scheme=dict(made.scheme) if made.scheme and "int8" in made.graphs else None,
        parity=dict(made.parity),
        scores=dict(made.scores),
        teacher=dict(made.teacher),
    )


def finish_bundle(part: Path, folder: Path, made: ExportInput, golden: Mapping[str, Any]) -> None:
    """Leave only the graphs of `made`, write golden answers, model card and manifest, and put the folder in its place."""
    for precision in PRECISIONS.keys() - made.graphs.keys():
        (part / PRECISIONS[precision]).unlink(missing_ok=True)
    write_atomic(part / "golden.json", json_text(golden))
    manifest = manifest_of(made)
    sizes = {
        precision: (part / path).stat().st_size for precision, path in manifest.precisions.items()
    }
    write_atomic(part / "README.md", model_card(manifest, sizes))
    write_manifest(part, manifest)
    Bundle.open(part)
    replace_dir(part, folder)


def golden_answers(classifiers: Mapping[str, Classifier], split: Split) -> dict[str, Any]:
    """Real texts, spread over the lengths, with their token ids and each file's logits for the text alone."""
    order = np.argsort([len(text) for text in split.texts], kind="stable")
    chosen = order[np.unique(np.linspace(0, len(order) - 1, GOLDEN_TEXTS).astype(int))].tolist()
    rows = []
    for i in chosen:
        texts, pairs = [split.texts[i]], None if split.pairs is None else [split.pairs[i]]
        row: dict[str, Any] = {"text": texts[0]} | ({} if pairs is None else {"pair": pairs[0]})
        for precision, classifier in classifiers.items():
            encoded = classifier.encode(texts, pairs)
            row["input_ids"] = encoded["input_ids"][0].tolist()
            row.setdefault("logits", {})[precision] = [
                float(f"{value:.7g}") for value in classifier.run(encoded)[0].tolist()
            ]
        rows.append(row)
    return {"tolerance": {name: GOLDEN_TOLERANCE[name] for name in classifiers}, "rows": rows}


def file_score(classifier: Classifier, split: Split) -> tuple[float, np.ndarray]:
    """The metric of a file itself on a split, and its logits (N, C)."""
    logits = classifier.logits(split.texts, split.pairs)
    return score(classifier.spec.metric, classifier.spec.kind, logits, split.labels), logits


def _save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path, max_length: int) -> None:
    """tokenizer.json without padding or truncation baked in, and its configuration for Hugging Face's libraries."""
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.save_pretrained(folder)
    config = folder / "tokenizer_config.json"
    document = json.loads(config.read_text(encoding="utf-8")) | {"model_max_length": max_length}
    write_atomic(config, json_text(document))
