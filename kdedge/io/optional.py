"""Find out which optional dependencies are installed; needs none of them itself."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from types import ModuleType

from kdedge.errors import MachineError

TRAINING_PACKAGES = (
    "accelerate",
    "altair",
    "datasets",
    "gguf",
    "jinja2",
    "onnx",
    "onnxscript",
    "optimum",
    "pyarrow",
    "pydantic",
    "safetensors",
    "scipy",
    "sklearn",
    "tensorboard",
    "tomli_w",
    "torch",
    "transformers",
    "vl_convert",
)
"""Import names of packages that only the extra `train` installs."""

TUNING_PACKAGES = ("optuna", "sqlalchemy")
"""Import names of the packages in the extra `tune`."""

EXTRAS = {
    "cryptography": "sign",
    "cyclonedx": "sbom",
    "ftfy": "clean",
    "prometheus_client": "serve",
    "starlette": "serve",
    "uvicorn": "serve",
}
"""Import name of a package -> the extra that installs it alone."""


def installed_versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Return distribution -> version for those of `packages` that are installed."""
    versions = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def missing_packages(packages: tuple[str, ...]) -> list[str]:
    """List the packages that are not installed, without importing any."""
    return [name for name in packages if find_spec(name) is None]


def missing_training_packages() -> list[str]:
    """List the training packages that are not installed, without importing any."""
    return missing_packages(TRAINING_PACKAGES)


def extra_of(package: str) -> str | None:
    """Return the extra that installs a package, or None for any other package."""
    if package in TRAINING_PACKAGES:
        return "train"
    if package in TUNING_PACKAGES:
        return "train,tune"
    return EXTRAS.get(package)


def missing_package(package: str, what: str) -> MachineError:
    """Return the error for a missing package that `what` needs, with the pip line."""
    return MachineError(
        f"{what} needs more packages",
        f"{package} is not installed",
        f'pip install "kdedge-toolkit[{extra_of(package)}]"',
    )


@contextmanager
def named_extra(what: str) -> Iterator[None]:
    """Convert the ImportError of an optional package to a MachineError with the pip line.

    Args:
        what: The feature that needs the package, for the message.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if extra_of(package) is None:
            raise
        raise missing_package(package, what) from error


def import_pandas() -> ModuleType:
    """Import pandas. Raises MachineError with the pip line if it is not installed."""
    try:
        return importlib.import_module("pandas")
    except ModuleNotFoundError as error:
        raise MachineError(
            "to_pandas() needs pandas", "it is not installed", "pip install pandas"
        ) from error
