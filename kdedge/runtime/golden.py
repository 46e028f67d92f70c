"""Replay the golden texts of a bundle: compare its logits here with those of the export.

A golden text is a text in golden.json with the tokens and logits that export computed for it. A
bundle must reproduce them on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from kdedge.errors import IntegrityError
from kdedge.runtime.bundle import Bundle
from kdedge.runtime.classifier import Classifier
from kdedge.runtime.manifest import Manifest
from kdedge.runtime.prediction import check_finite, to_prediction
from kdedge.runtime.session import NotAllNodesError
from kdedge.runtime.spec import TaskSpec

MAX_ROWS = 1000
"""Most golden texts of a bundle: each of them is run."""

LARGEST_NUMBER = 1e30
"""Logits and tolerances must not be larger; the limit of float32 is 3e38."""

QUARTILE_TOLERANCE = {"fp32": 1e-3, "int8": 1e-3, "portable": 1e-3, "fp16": 5e-3}
"""At least a quarter of the texts must be this close, whatever the tolerance of the file.

On another CPU an activation may round to the next integer, which changes the logits of some texts,
most often of long ones. A wrong file changes those of all texts. fp16 rounds at every operation, so
the logits of all texts differ a little; see `GOLDEN_TOLERANCE` of `kdedge.export.pack`."""


@dataclass(frozen=True)
class Replay:
    """The differences of one file from its golden logits.

    Attributes:
        texts: Number of texts.
        max_abs_logit: Largest logit difference of any text.
        quartile_abs_logit: Lower quartile of the texts' logit differences.
        tolerance: Largest accepted `max_abs_logit`.
        token_mismatches: Number of texts that this machine tokenizes differently.
        label_mismatches: Number of texts for which this machine predicts another label. If the
            logits are within the tolerance, these texts lie between two labels.
    """

    precision: str
    texts: int
    max_abs_logit: float
    quartile_abs_logit: float
    tolerance: float
    token_mismatches: int
    label_mismatches: int = 0

    @property
    def quartile_tolerance(self) -> float:
        """Largest accepted `quartile_abs_logit`."""
        return QUARTILE_TOLERANCE[self.precision]

    @property
    def passed(self) -> bool:
        return (
            self.token_mismatches == 0
            and self.label_mismatches <= self.texts // 4
            and self.max_abs_logit <= self.tolerance
            and self.quartile_abs_logit <= self.quartile_tolerance
        )


def replay(bundle: Bundle, provider: str = "cpu", *, fallback: bool = False) -> list[Replay]:
    """Run every golden text through every ONNX file that the provider can run.

    The CPU must run all of them. Another provider has no kernels for the int8 file.

    Raises:
        MachineError: If the provider can run no file.
        IntegrityError: If golden.json is malformed, or its labels do not follow from its logits
            and the manifest.
        CheckFailed: If a logit is not a number.
    """
    document = _read_golden(bundle)
    replays: list[Replay] = []
    precisions = sorted(bundle.manifest.precisions)
    for precision in precisions:
        try:
            classifier = Classifier.from_bundle(bundle, precision, provider, fallback=fallback)
        except NotAllNodesError:
            if precision == precisions[-1] and not replays:
                raise
        else:
            replays.append(_replay_file(classifier, document))
    return replays


def _replay_file(classifier: Classifier, document: dict[str, Any]) -> Replay:
    differences = []
    token_mismatches = 0
    label_mismatches = 0
    for row in document["rows"]:
        pairs = [row["pair"]] if "pair" in row else None
        encoded = classifier.encode([row["text"]], pairs)
        if encoded["input_ids"][0].tolist() != row["input_ids"]:
            token_mismatches += 1
        expected = np.array(row["logits"][classifier.precision], np.float32)
        logits = check_finite(classifier.run(encoded))[0]
        differences.append(float(np.abs(logits - expected).max()))
        if golden_label(classifier.spec, logits) != row["labels"][classifier.precision]:
            label_mismatches += 1
    differences.sort()
    return Replay(
        precision=classifier.precision,
        texts=len(differences),
        max_abs_logit=differences[-1],
        quartile_abs_logit=differences[(len(differences) - 1) // 4],
        tolerance=float(document["tolerance"][classifier.precision]),
        token_mismatches=token_mismatches,
        label_mismatches=label_mismatches,
    )


def golden_label(spec: TaskSpec, logits: np.ndarray) -> str | list[str]:
    """Return the label that golden.json stores for logits (C,); multilabel: all labels."""
    label = to_prediction(spec, logits).label
    return list(label) if isinstance(label, tuple) else label


def _read_golden(bundle: Bundle) -> dict[str, Any]:
    document = bundle.json("golden.json")
    try:
        valid = _is_valid(document, bundle.manifest)
    except (KeyError, TypeError, AttributeError):
        valid = False
    if not valid:
        raise IntegrityError(
            "golden.json of the bundle is malformed", str(bundle.folder), "export again"
        )
    _check_labels(document, bundle.manifest)
    return dict(document)


def _check_labels(document: dict[str, Any], manifest: Manifest) -> None:
    """Check that every stored label follows from the stored logits and the manifest."""
    for row in document["rows"]:
        for precision in manifest.precisions:
            logits = np.array(row["logits"][precision], np.float32)
            label = golden_label(manifest.spec, logits)
            if row["labels"].get(precision) != label:
                raise IntegrityError(
                    "golden.json and the manifest name different labels",
                    f"{precision}: golden.json has {row['labels'].get(precision)!r}, the manifest "
                    f"gives {label!r} to the same logits"[:300],
                    "do not use this bundle; copy it again from its source",
                )


def _is_valid(document: dict[str, Any], manifest: Manifest) -> bool:
    for precision in manifest.precisions:
        if not _is_finite_number(document["tolerance"][precision]):
            return False
    rows = document["rows"]
    if not isinstance(rows, list) or not 0 < len(rows) <= MAX_ROWS:
        return False
    return all(_is_row(row, manifest) for row in rows)


def _is_row(row: dict[str, Any], manifest: Manifest) -> bool:
    has_texts = (
        isinstance(row["text"], str)
        and ("pair" in row) == manifest.spec.pair
        and isinstance(row.get("pair", ""), str)
        and isinstance(row["input_ids"], list)
        and isinstance(row["labels"], dict)
    )
    return has_texts and all(
        len(row["logits"][precision]) == manifest.spec.outputs
        and all(_is_finite_number(value) for value in row["logits"][precision])
        for precision in manifest.precisions
    )


def _is_finite_number(value: Any) -> bool:
    """Check for a number that float32 can hold; an integer of JSON may have 400 digits."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return -LARGEST_NUMBER <= value <= LARGEST_NUMBER  # False for NaN
