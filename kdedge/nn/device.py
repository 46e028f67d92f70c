"""The device of this process, and the precision that it computes in."""

from __future__ import annotations

import torch

FIXED_PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def native_precision(precision: str, device: torch.device) -> torch.dtype | None:
    """Return the autocast type for a recipe's precision; None is fp32.

    "auto" chooses bf16 only if the device computes in it: a CPU that emulates it is ten times
    slower.
    """
    if precision in FIXED_PRECISIONS:
        return FIXED_PRECISIONS[precision]
    if device.type == "cuda":
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has_bf16 else torch.float16
    if device.type == "cpu" and torch.cpu._is_avx512_bf16_supported():
        return torch.bfloat16
    return None


def this_device() -> torch.device:
    """Return the accelerator of this process if there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
