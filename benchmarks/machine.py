"""What a report says of the machine it was measured on: parts and versions, never names or paths."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

FLAGS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "amx_int8",
    "amx_bf16",
    "avx512_bf16",
    "asimd",
    "asimddp",
    "i8mm",
    "sve",
)
"""Instruction sets that decide how fast an int8 or fp32 model runs."""

PACKAGES = (
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "tokenizers",
    "torch",
    "transformers",
    "scikit-learn",
)


def describe(threads: int) -> dict[str, Any]:
    """This machine as a JSON-able value.

    threads: what every subject was limited to.
    """
    import onnxruntime

    info = _cpuinfo()
    return {
        "cpu": info.get("model name") or platform.processor() or platform.machine(),
        "architecture": platform.machine(),
        "cores": _cores(),
        "flags": _flags(info),
        "memory_mb": _memory_mb(),
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": _versions(),
        "providers": list(onnxruntime.get_available_providers()),
        "gpu": _gpu(),
        "threads": threads,
    }


def notes(machine: dict[str, Any]) -> list[str]:
    """What a reader should know before carrying these numbers to another machine."""
    flags = machine["flags"]
    said = []
    if (
        machine["architecture"] in ("x86_64", "AMD64")
        and flags is not None
        and not {"avx512_vnni", "avx_vnni", "amx_int8"} & set(flags)
    ):
        said.append(
            "this CPU has no VNNI: int8 models run relatively faster on one that has it, and their answers may differ slightly there"
        )
    if (
        machine["architecture"] in ("aarch64", "arm64")
        and flags is not None
        and "asimddp" not in flags
    ):
        said.append(
            "this CPU has no dot-product instructions (asimddp): int8 models run relatively faster on one that has them"
        )
    if machine["threads"] > 1:
        said.append(
            f"{machine['threads']} threads: idle worker threads of one subject may still spin while the next is measured"
        )
    if machine["cores"] and machine["threads"] > machine["cores"]:
        said.append(f"{machine['threads']} threads were asked for on {machine['cores']} cores")
    return said


def line(threads: int = 1) -> str:
    """What a table was measured on, for its head."""
    machine = describe(threads)
    flags, doubts = ", ".join(machine["flags"] or []), " ".join(notes(machine))
    packages = ", ".join(f"{name} {number}" for name, number in machine["packages"].items())
    return f"Machine: {machine['cpu']}, {flags}; {packages}; {threads} thread{'s' * (threads > 1)}. {doubts}\n"


def _cpuinfo() -> dict[str, str]:
    """First processor of /proc/cpuinfo; empty where there is none."""
    try:
        block = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in block.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _flags(info: dict[str, str]) -> list[str] | None:
    """Known instruction sets that are present; None where the system does not tell."""
    told = info.get("flags") or info.get("Features")
    return None if told is None else [flag for flag in FLAGS if flag in told.split()]


def _cores() -> int | None:
    # The cores this process may use: in a container fewer than the machine has.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _memory_mb() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    except (AttributeError, ValueError, OSError):
        return None


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _gpu() -> str | None:
    """Name of the first CUDA device, where torch was loaded anyway."""
    import sys

    torch = sys.modules.get("torch")
    return (
        str(torch.cuda.get_device_name(0))
        if torch is not None and torch.cuda.is_available()
        else None
    )
