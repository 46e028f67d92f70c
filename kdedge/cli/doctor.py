"""`kdedge doctor`: versions, CPU features, and what is missing on this machine."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path
from typing import Any

import click

from kdedge import __version__
from kdedge.cli.console import print_json, print_line
from kdedge.cli.options import json_option
from kdedge.io.optional import (
    TRAINING_PACKAGES,
    TUNING_PACKAGES,
    installed_versions,
    missing_packages,
)

PACKAGES = (
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "tokenizers",
    "torch",
    "transformers",
    "datasets",
    "onnx",
    "optuna",
)
BF16 = ("avx512_bf16", "amx_bf16")
"""CPU features with which training in bf16 is fast."""

ENVIRONMENT = ("HF_HOME", "HF_HUB_OFFLINE", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
NAME_WIDTH = 18


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """List versions, CPU features, memory and execution providers, and what is missing.

    \b
    Example: kdedge doctor
    """
    facts = _facts()
    missing = {
        "train": missing_packages(TRAINING_PACKAGES),
        "tune": missing_packages(TUNING_PACKAGES),
    }
    if as_json:
        print_json({**facts, "missing": missing})
        return
    for name, value in facts.items():
        print_line(f"{name + ':':<{NAME_WIDTH}}{_shown(value)}")
    for extra, packages in missing.items():
        _print_missing(extra, packages)


def _facts() -> dict[str, Any]:
    from kdedge.benchmarks import machine

    described = machine.describe(threads=1)
    flags = described["flags"]
    return {
        "kdedge": __version__,
        "python": f"{platform.python_version()} on {described['os']}",
        **installed_versions(PACKAGES),
        "cpu": described["cpu"],
        "cores": described["cores"],
        "cpu features": flags,
        "int8": _int8_note(flags, machine.VNNI),
        "bf16": None if flags is None else bool(set(flags) & set(BF16)),
        "memory": f"{_gib(described['memory_mb'])} GiB",
        "free disk here": f"{shutil.disk_usage('.').free / 2**30:.0f} GiB",
        "providers": described["providers"],
        "--provider": [*_short_names(described["providers"]), "all"],
        "not offered": _not_offered(described["providers"]),
        "gpu": _gpu(),
        "model cache": str(_model_cache()),
        **{name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
    }


def _not_offered(providers: list[str]) -> list[str]:
    """Return the known providers that this ONNX Runtime does not have."""
    from kdedge.runtime.session import PROVIDERS

    return [name for name, full in PROVIDERS.items() if full not in providers]


def _short_names(providers: list[str]) -> list[str]:
    """Return what --provider calls these providers of ONNX Runtime."""
    from kdedge.runtime.session import PROVIDERS

    short = {full: name for name, full in PROVIDERS.items()}
    return [short.get(provider, provider) for provider in providers]


def _int8_note(flags: list[str] | None, vnni: set[str]) -> str:
    if flags is None:
        return "this system does not list CPU features"
    if set(flags) & vnni or "asimddp" in flags:
        return "fast: the CPU has dot products of integers (VNNI)"
    return "slower than on a CPU with dot products of integers (VNNI)"


def _gib(megabytes: int | None) -> str:
    return "unknown" if megabytes is None else f"{megabytes / 1024:.1f}"


def _gpu() -> str:
    """Name the GPU that torch would use."""
    try:
        import torch
    except ImportError:
        return "unknown: torch is not installed"
    return str(torch.cuda.get_device_name(0)) if torch.cuda.is_available() else "none"


def _model_cache() -> Path:
    """Return the folder in which Hugging Face's libraries keep what they download."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    home = os.environ.get("HF_HOME") or Path(cache) / "huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub")


def _shown(value: Any) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(value) or "none"
    return str(value)


def _print_missing(extra: str, packages: list[str]) -> None:
    name = f"for kdedge {extra}" if extra == "tune" else "for training"
    if not packages:
        print_line(f"{name + ':':<{NAME_WIDTH}}all packages are installed")
        return
    print_line(f"{name + ':':<{NAME_WIDTH}}missing: {', '.join(packages)}")
    print_line(f'{"":<{NAME_WIDTH}}pip install "kdedge-toolkit[{extra}]"')
