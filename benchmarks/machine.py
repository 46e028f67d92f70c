"""Describe the machine of a report: parts and versions, never names or paths."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

from kdedge.io.optional import installed_versions
from kdedge.run.processes import available_cores

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

VNNI = {"avx512_vnni", "avx_vnni", "amx_int8"}

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
    """Describe this machine as a value for JSON; `threads` is the limit of every subject."""
    import onnxruntime

    info = _cpu_info()
    return {
        "cpu": info.get("model name") or platform.processor() or platform.machine(),
        "architecture": platform.machine(),
        "cores": available_cores(),
        "flags": _flags(info),
        "memory_mb": _memory_mb(),
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": installed_versions(PACKAGES),
        "providers": list(onnxruntime.get_available_providers()),
        "gpu": _gpu(),
        "threads": threads,
    }


def notes(machine: dict[str, Any]) -> list[str]:
    """Return notes on why another machine may give other numbers."""
    lines = []
    if machine["flags"] is not None:
        lines += _instruction_notes(machine["architecture"], set(machine["flags"]))
    threads, cores = machine["threads"], machine["cores"]
    if threads > 1:
        lines.append(
            f"{threads} threads: idle worker threads of one subject can still spin while the next"
            " subject is measured"
        )
    if cores and threads > cores:
        lines.append(f"{threads} threads were requested on {cores} cores")
    return lines


def _instruction_notes(architecture: str, flags: set[str]) -> list[str]:
    if architecture in ("x86_64", "AMD64") and not flags & VNNI:
        return [
            "this CPU has no VNNI: int8 models are relatively faster on a CPU that has it, and"
            " their predictions can differ slightly there"
        ]
    if architecture in ("aarch64", "arm64") and "asimddp" not in flags:
        return [
            "this CPU has no dot-product instructions (asimddp): int8 models are relatively faster"
            " on a CPU that has them"
        ]
    return []


def _cpu_info() -> dict[str, str]:
    """Return the first processor of /proc/cpuinfo; {} if the system has no such file."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    info = {}
    for entry in text.split("\n\n")[0].splitlines():
        key, _, value = entry.partition(":")
        info[key.strip()] = value.strip()
    return info


def _flags(info: dict[str, str]) -> list[str] | None:
    """Return the known instruction sets of this CPU; None if the system does not list them."""
    listed = info.get("flags") or info.get("Features")
    if listed is None:
        return None
    return [flag for flag in FLAGS if flag in listed.split()]


def _memory_mb() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    except (AttributeError, ValueError, OSError):
        return None


def _gpu() -> str | None:
    """Return the name of the first CUDA device if torch is already imported."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    return str(torch.cuda.get_device_name(0))
