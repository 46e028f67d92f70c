"""Which optional dependencies are installed; importable without any of them."""

from __future__ import annotations

from importlib.util import find_spec

TRAINING_PACKAGES = (
    "accelerate",
    "altair",
    "datasets",
    "jinja2",
    "onnx",
    "onnxscript",
    "optimum",
    "pyarrow",
    "pydantic",
    "safetensors",
    "scipy",
    "sklearn",
    "tomli_w",
    "torch",
    "transformers",
    "vl_convert",
)
"""Import names of packages that only the extra `train` installs."""

TUNING_PACKAGES = ("optuna", "sqlalchemy")
"""Import names of the packages in the extra `tune`."""


def missing_training_packages() -> list[str]:
    """List the training packages that are not installed, without importing any."""
    return [name for name in TRAINING_PACKAGES if find_spec(name) is None]


def extra_of(package: str) -> str | None:
    """Return the extra that installs a package, or None for any other package."""
    if package in TRAINING_PACKAGES:
        return "train"
    if package in TUNING_PACKAGES:
        return "train,tune"
    return None
