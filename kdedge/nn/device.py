"""The device that this process computes on, and the precision it is good at."""

from __future__ import annotations

import torch


def native_precision(wish: str, device: torch.device) -> torch.dtype | None:
    """The autocast type for a recipe's precision; None is fp32.

    auto takes bf16 only where the device computes in it: on a CPU without such instructions it is ten times slower.
    """
    fixed = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
    if wish in fixed:
        return fixed[wish]
    if device.type == "cuda":
        return (
            torch.bfloat16
            if torch.cuda.is_bf16_supported(including_emulation=False)
            else torch.float16
        )
    if device.type == "cpu" and torch.cpu._is_avx512_bf16_supported():
        return torch.bfloat16
    return None


def this_device() -> torch.device:
    """The accelerator of this process where there is one, else the CPU."""
    return (
        torch.device("cuda", torch.cuda.current_device())
        if torch.cuda.is_available()
        else torch.device("cpu")
    )
