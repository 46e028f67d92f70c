"""kdedge distills a large text classifier into a small one and measures what it retains.

    run = kdedge.distill("recipe.toml")          # or from a model and texts in memory
    bundle = kdedge.export_bundle(run)           # int8 ONNX files, checked against torch
    report = kdedge.bench(bundle)                # retention, latency, memory, size
    kdedge.Classifier.load(bundle).predict("a text")

Names are imported on first use: `import kdedge` needs none of the packages for training.
"""

import importlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kdedge.api.bench import bench as bench
    from kdedge.api.distill import distill as distill
    from kdedge.api.export import export_bundle as export_bundle
    from kdedge.api.export import export_bundles as export_bundles
    from kdedge.api.run import Run as Run
    from kdedge.api.students import BiLstm as BiLstm
    from kdedge.api.students import TinyBert as TinyBert
    from kdedge.benchmarks.report import Report as Report
    from kdedge.cascade.cascade import Cascade as Cascade
    from kdedge.errors import KdedgeError as KdedgeError
    from kdedge.recipe import Recipe as Recipe
    from kdedge.recipe import load_recipe as load_recipe
    from kdedge.runtime.bundle import Bundle as Bundle
    from kdedge.runtime.classifier import Classifier as Classifier
    from kdedge.runtime.prediction import Prediction as Prediction

__version__ = "0.1.0"

# ONNX Runtime's official builds send usage data to Microsoft, and keep a device id in the user's
# cache, unless this is set before they are loaded. Whoever wants it sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = [
    "BiLstm",
    "Bundle",
    "Cascade",
    "Classifier",
    "KdedgeError",
    "Prediction",
    "Recipe",
    "Report",
    "Run",
    "TinyBert",
    "__version__",
    "bench",
    "distill",
    "export_bundle",
    "export_bundles",
    "load_recipe",
]

_MODULES = {
    "BiLstm": "kdedge.api.students",
    "Bundle": "kdedge.runtime.bundle",
    "Cascade": "kdedge.cascade.cascade",
    "Classifier": "kdedge.runtime.classifier",
    "KdedgeError": "kdedge.errors",
    "Prediction": "kdedge.runtime.prediction",
    "Recipe": "kdedge.recipe",
    "Report": "kdedge.benchmarks.report",
    "Run": "kdedge.api.run",
    "TinyBert": "kdedge.api.students",
    "bench": "kdedge.api.bench",
    "distill": "kdedge.api.distill",
    "export_bundle": "kdedge.api.export",
    "export_bundles": "kdedge.api.export",
    "load_recipe": "kdedge.recipe",
}
"""Name -> module that defines it."""


def __getattr__(name: str) -> object:
    """Import a public name on first use."""
    if name not in _MODULES:
        raise AttributeError(f"module 'kdedge' has no attribute {name!r}")
    from kdedge.io.optional import named_extra

    with named_extra(f"kdedge.{name}"):
        value: object = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
