"""The fields of kdedge.json and the check of each value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kdedge.errors import IntegrityError
from kdedge.runtime.cleaning import STEPS
from kdedge.runtime.digest import DIGEST
from kdedge.runtime.layout import MANIFEST, PRECISIONS, size_limit
from kdedge.runtime.metrics import metric_fits
from kdedge.runtime.spec import KINDS

FORMAT = 1
"""Version of kdedge.json that this code writes and reads."""

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
SPEC_FIELDS = {"name", "kind", "labels", "metric", "pair", "threshold"}
MAX_LABELS = 100_000
MAX_LENGTH = 8192
"""Most tokens of a text: time and memory of a transformer grow with their square."""

LARGEST_NUMBER = 1e30
"""Largest score; that of a task lies between -1 and 1."""

LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.01, 100.0


def check_fields(document: Any) -> None:
    """Check that a parsed kdedge.json has valid fields and no unknown ones.

    Raises:
        IntegrityError: If a field is invalid or unknown; the message names it.
    """
    if not isinstance(document, dict):
        raise damaged("it is not a JSON object")
    _check_format(document.get("format"))
    for name, is_valid in FIELDS.items():
        if not is_valid(document.get(name)):
            raise damaged(f"{name} is {str(document.get(name))[:80]!r}")
    for name in document.keys() - FIELDS.keys() - {DIGEST}:
        raise damaged(f"it has the unknown field {name[:80]!r}")


def damaged(detail: str) -> IntegrityError:
    """Return the error for a manifest that cannot be used."""
    return IntegrityError(
        f"the manifest {MANIFEST} is damaged", detail, "copy the bundle again from its source"
    )


def _check_format(version: Any) -> None:
    """Raise IntegrityError if the format is not a version that this code reads."""
    if not _is_int(version, 1):
        raise damaged(f"format is {version!r}, not a positive integer")
    if version > FORMAT:
        raise IntegrityError(
            "this bundle was exported by a newer kdedge",
            f"format {version}; this kdedge reads up to {FORMAT}",
            "pip install --upgrade kdedge-toolkit",
        )


def _is_int(value: Any, low: int, high: int = 1 << 31) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_text(value: Any) -> bool:
    """Check for a string that can be encoded: JSON can spell a lone surrogate."""
    return isinstance(value, str) and not any("\ud800" <= char <= "\udfff" for char in value)


def _is_name(value: Any) -> bool:
    return _is_text(value) and value != ""


def _is_dict(value: Any) -> bool:
    return isinstance(value, dict)


def _is_number(value: Any) -> bool:
    """Check for a number that a float can hold: an integer of JSON may have 400 digits."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return -LARGEST_NUMBER <= value <= LARGEST_NUMBER  # False for NaN


def _is_scheme(value: Any) -> bool:
    """Check for names and numbers of bits; None stands for a bundle without an int8 file."""
    if value is None:
        return True
    return _is_dict(value) and all(_is_text(item) or _is_int(item, 0) for item in value.values())


def _are_scores(value: Any) -> bool:
    return _is_dict(value) and all(_is_score(name, score) for name, score in value.items())


def _is_score(name: str, value: Any) -> bool:
    if name == "metric":
        return _is_text(value)
    return _is_int(value, 0) if name == "split_size" else _is_number(value)


def _is_teacher(value: Any) -> bool:
    return _is_dict(value) and _is_text(value.get("model", ""))


def _is_spec(value: Any) -> bool:
    if not isinstance(value, dict) or not value.keys() <= SPEC_FIELDS:
        return False
    kind, metric = value.get("kind"), value.get("metric")
    if not isinstance(kind, str) or kind not in KINDS:
        return False
    if not isinstance(metric, str) or not metric_fits(metric, kind):
        return False
    if not _are_labels(value.get("labels")):
        return False
    if kind == "regression" and len(value["labels"]) != 1:
        return False
    has_pair = isinstance(value.get("pair"), bool)
    return has_pair and _is_text(value.get("name")) and _is_share(value.get("threshold", 0.5))


def _is_share(value: Any) -> bool:
    """Check for a number between 0 and 1, which are excluded."""
    return isinstance(value, float) and 0 < value < 1


def _is_temperature(value: Any) -> bool:
    return isinstance(value, float) and LOWEST_TEMPERATURE <= value <= HIGHEST_TEMPERATURE


def _are_labels(value: Any) -> bool:
    return (
        isinstance(value, list)
        and 1 <= len(value) <= MAX_LABELS
        and all(_is_name(label) for label in value)
        and len(set(value)) == len(value)
    )


def _are_inputs(value: Any) -> bool:
    return (
        isinstance(value, list)
        and all(name in INPUTS for name in value)
        and len(set(value)) == len(value)
        and {"input_ids", "attention_mask"} <= set(value)
    )


def _are_steps(value: Any) -> bool:
    """Check for names of steps in their order, or for no such field; patterns are impossible."""
    if value is None:
        return True
    if not isinstance(value, list) or not value or not all(map(_is_text, value)):
        return False
    return value == [name for name in STEPS if name in value]


def _are_precisions(value: Any) -> bool:
    if not isinstance(value, dict) or not value:
        return False
    return all(PRECISIONS.get(name) == path for name, path in value.items())


def _are_files(value: Any) -> bool:
    return isinstance(value, dict) and all(_is_file(name, entry) for name, entry in value.items())


def _is_file(name: str, entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and entry.keys() == {"sha256", "bytes"}
        and isinstance(entry["sha256"], str)
        and _is_int(entry["bytes"], 0, size_limit(name))
    )


FIELDS: dict[str, Callable[[Any], bool]] = {
    "format": lambda value: _is_int(value, 1),
    "name": _is_name,
    "kdedge": _is_text,
    "spec": _is_spec,
    "max_length": lambda value: _is_int(value, 2, MAX_LENGTH),
    "pad_token_id": lambda value: _is_int(value, 0),
    "inputs": _are_inputs,
    "precisions": _are_precisions,
    "scheme": _is_scheme,
    "parity": _is_dict,
    "scores": _are_scores,
    "teacher": _is_teacher,
    "sources": _is_dict,
    "files": _are_files,
    "temperature": _is_temperature,
    "clean": _are_steps,
}
"""Field of kdedge.json -> the check of its value."""
