"""Replays a bundle's golden answers on this machine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kdedge.errors import IntegrityError
from kdedge.runtime.bundle import Bundle, is_finite_number
from kdedge.runtime.classifier import Classifier, finite

TYPICAL = 1e-3
"""A quarter of the golden texts must be answered this nearly, whatever the file's tolerance: an activation that rounds to the next
integer on another CPU moves some texts, the longer ones first; other numbers move all of them."""


@dataclass(frozen=True)
class Replay:
    """What one file answered: texts replayed, largest logit difference of a text, the largest of the nearest quarter of
    the texts, the tolerance of the former, texts tokenized otherwise.
    """

    precision: str
    texts: int
    max_abs_logit: float
    quarter_abs_logit: float
    tolerance: float
    other_tokens: int

    @property
    def passed(self) -> bool:
        return (
            self.other_tokens == 0
            and self.max_abs_logit <= self.tolerance
            and self.quarter_abs_logit <= TYPICAL
        )


def replay(bundle: Bundle, provider: str = "cpu") -> list[Replay]:
    """Answer every golden text with every file. Raises IntegrityError where golden.json is not what it must be,
    GateFailed where an answer is not a number.
    """
    document = _checked(bundle)
    replays = []
    for precision in sorted(bundle.manifest.precisions):
        classifier = Classifier.from_bundle(bundle, precision, provider)
        differences, other = [], 0
        for row in document["rows"]:
            encoded = classifier.encode([row["text"]], [row["pair"]] if "pair" in row else None)
            other += encoded["input_ids"][0].tolist() != row["input_ids"]
            differences.append(
                float(
                    np.abs(
                        finite(classifier.run(encoded))[0]
                        - np.array(row["logits"][precision], np.float32)
                    ).max()
                )
            )
        tolerance = float(document["tolerance"][precision])
        replays.append(
            Replay(
                precision,
                len(document["rows"]),
                max(differences),
                sorted(differences)[(len(differences) - 1) // 4],
                tolerance,
                other,
            )
        )
    return replays


def _checked(bundle: Bundle) -> dict:  # type: ignore[type-arg]
    document, spec = bundle.json("golden.json"), bundle.manifest.spec
    precisions = set(bundle.manifest.precisions)
    try:
        good = (
            all(is_finite_number(document["tolerance"][name]) for name in precisions)
            and len(document["rows"]) > 0
        )
        for row in document["rows"]:
            good &= (
                isinstance(row["text"], str)
                and ("pair" in row) == spec.pair
                and isinstance(row.get("pair", ""), str)
            )
            good &= isinstance(row["input_ids"], list)
            for name in precisions:
                good &= len(row["logits"][name]) == spec.outputs and all(
                    is_finite_number(value) for value in row["logits"][name]
                )
    except (KeyError, TypeError, AttributeError):
        good = False
    if not good:
        raise IntegrityError(
            "golden.json of the bundle is not a list of golden answers",
            str(bundle.folder),
            "export again",
        )
    return dict(document)
