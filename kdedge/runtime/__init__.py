"""Open a bundle and classify texts, with numpy, onnxruntime and tokenizers only."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdedge.runtime.bundle import Bundle
    from kdedge.runtime.classifier import Classifier
    from kdedge.runtime.manifest import Manifest
    from kdedge.runtime.prediction import Prediction

__all__ = ["Bundle", "Classifier", "Manifest", "Prediction"]

_MODULES = {
    "Bundle": "kdedge.runtime.bundle",
    "Manifest": "kdedge.runtime.manifest",
    "Classifier": "kdedge.runtime.classifier",
    "Prediction": "kdedge.runtime.prediction",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is used: a recipe needs the specification of a task only."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
